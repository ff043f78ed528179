"""`ucdir benchmark`: run methods x pairs x seeds on a data set and collect the scores in one table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucdir.commands.command import command as command_of
from ucdir.commands.console import live_table, note
from ucdir.commands.console import show as show_table
from ucdir.commands.report import write_report
from ucdir.errors import UcdirError
from ucdir.progress import Progress, no_log, no_progress
from ucdir.settings import Settings

if TYPE_CHECKING:
    from ucdir.report.benchmark_facts import BenchmarkFacts

DEFAULT_METHODS = ("frozen", "centred", "smoothed", "instance", "ucdir", "protoot", "align")


def benchmark(
    sources: Sequence[str],
    out: Path = Path("benchmark"),
    methods: Sequence[str] = DEFAULT_METHODS,
    pairs: Sequence[str] = (),
    seeds: int = 3,
    protocols: Sequence[str] = ("paper",),
    ks: Sequence[int] = (),
    settings: Settings | Mapping[str, Any] | None = None,
    devices: Sequence[str] = ("auto",),
    command: str = "",
    progress: Progress = no_progress,
    log: Callable[[str], None] = no_log,
    show: Callable[["BenchmarkFacts"], None] = lambda facts: None,
    preset: str | None = None,
    config: Path | None = None,
) -> "BenchmarkFacts":
    """Compare methods with training-free baselines on all pairs of a data set, in both directions, over several seeds.

    sources     A folder that `ucdir data prepare` wrote, or two or more folders or manifests with classes.
    out         Folder for the results and the run of each cell. Finished cells are not run again.
    methods     Separated by commas: frozen, centred, smoothed, align, tune, ucdir, instance, cluster, prototype, coda, protoot.
    pairs       NAME-NAME,NAME-NAME. Default: the pairs of the data set, or all pairs.
    seeds       Number of seeds: 0, 1, ...
    protocols   paper: train on the query and gallery images. held-out: score on the test split of the data set, or on a
                fifth of the images. half-a, half-b: the first or second domain keeps only half of the classes. private: each
                domain has classes that the other lacks. The seed chooses the classes. Repeat for several protocols.
    ks          Cut-offs. Repeat for several. Default: the cut-offs of the data set, or 1 5 15 50.
    settings    complete settings of every training; or {"section.key": value} to change some of `preset` and `config`
    devices     Device to run cells on. Repeat to use several at once. Default: every CUDA device, or the CPU.
    command     command line that repeats the benchmark, for the tables
    show        called with the results after each cell
    preset      Preset for every training. Default: the preset of the data set; otherwise head, which fits a laptop.
    config      TOML file with settings.
    raises      UsageError when something does not exist or contradicts the results in `out`; UcdirError at the end when cells
                failed; InterruptedRun on Ctrl-C
    """
    from ucdir.benchmarking.plan import Plan, run_plan, settings_of_methods

    resolved = settings_of_methods(sources, settings, preset, config, methods)
    plan = Plan(sources, out, methods, pairs, seeds, protocols, ks, resolved, devices, command)
    facts, outcome = run_plan(plan, progress, log, show)
    try:
        write_report(out)
    except UcdirError as error:
        log(f"no report: {error}")
    outcome.refuse_failures()
    return facts


def _split_at_commas(given: dict[str, Any]) -> None:
    for name in ("methods", "pairs"):
        if name in given:
            given[name] = tuple(part.strip() for text in given[name] for part in text.split(",") if part.strip())


def show_benchmark(facts: "BenchmarkFacts", out: Path = Path("benchmark"), json: bool = False) -> None:
    """Print the table.

    json   Print one JSON document instead of a table.
    """
    from ucdir.documents import to_json
    from ucdir.report.benchmark_facts import FORMAT_VERSION
    from ucdir.report.benchmark_tables import benchmark_table

    if json:
        print(to_json(facts, FORMAT_VERSION), end="")
    else:
        show_table(benchmark_table(facts))
    note(f"Wrote {out}: report.html, results.json, results.md, results.tex, and the run of each cell under cells/.")


benchmark_command = command_of(
    benchmark,
    show_benchmark,
    settings=("encoder.weights", "optimiser.epochs"),
    adapt=_split_at_commas,
    supply=live_table,
)
