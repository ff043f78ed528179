"""`ucdir benchmark`: whole tables from small drawn data sets, runs that go on, and tables in every form."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import save_file
from small_run import GRADIENT
from trees import files_of, smaller, write_tree

from ucdir.benchmarking.cells import time_left
from ucdir.benchmarking.plan import FREE, settings_of_methods
from ucdir.commands.benchmark import benchmark
from ucdir.commands.console import live_table
from ucdir.datasets.catalogue import DOMAINNET, OFFICE_HOME, PACS
from ucdir.datasets.prepare import prepare_dataset, preparing
from ucdir.drawing.collection import draw_collections
from ucdir.errors import InterruptedRun, UcdirError, UsageError
from ucdir.images.domains import load_domain, load_domains
from ucdir.learn.run import carry_out
from ucdir.model.encoder import build_encoder
from ucdir.report.benchmark_facts import BenchmarkFacts, BenchmarkRow, PublishedFigure, read_benchmark
from ucdir.report.benchmark_tables import EPOCHS, benchmark_latex, benchmark_markdown, benchmark_table, seed_values, shown
from ucdir.report.published import published_figures
from ucdir.settings import Settings, load_settings
from ucdir.storage import locked

pytestmark = pytest.mark.slow

SMALL = GRADIENT | {
    "optimiser.epochs": 2,
    "optimiser.batch_size": 8,
    "data.cache_dir": "none",
}


def small(**changes: Any) -> Settings:
    return load_settings(assignments=SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    drawn = draw_collections(tmp_path_factory.mktemp("drawn") / "d", images_per_class=4, size=40)
    return str(drawn.photo), str(drawn.drawing)


@pytest.fixture(scope="module")
def first(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BenchmarkFacts]:
    """Two training-free methods and one that is trained, two seeds."""
    out = tmp_path_factory.mktemp("first") / "out"
    return out, benchmark(folders, out, ["frozen", "smoothed", "instance"], seeds=2, ks=(1, 3), settings=small())


def printed(facts: BenchmarkFacts, width: int = 200) -> str:
    text = io.StringIO()
    Console(width=width, file=text).print(benchmark_table(facts))
    return text.getvalue()


# Data sets of the real layout


def test_one_command_prints_the_table_of_office_home(tmp_path: Path) -> None:
    """From unpacked folders, as they come, to twelve directions beside what others published."""
    write_tree(tmp_path / "archives", files_of(smaller(OFFICE_HOME)))
    prepare = ("data", "prepare", "office-home", "--source", "archives", "--allow-differences")
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    compare = ("benchmark", "office-home", "--methods", "frozen,centred,smoothed,instance", "--seeds", "1", *settings)
    for command in (prepare, (*compare, "--set", "optimiser.epochs=1", "--set", "method.num_clusters=5")):
        ended = subprocess.run([sys.executable, "-m", "ucdir", *command], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    names = [domain.name for domain in OFFICE_HOME.domains]
    for query in names:
        for gallery in names:
            assert (f" {query} → {gallery} " in ended.stdout) == (query != gallery)
    for word in ("frozen", "centred", "smoothed", "instance, last", "instance, oracle", "P@15", "mAP@All"):
        assert word in ended.stdout
    assert "NOT office-home as it is known" in ended.stdout
    assert "Published: UCDIR, mean of all directions: mAP@All 48.7" in ended.stdout.replace("\n", " ")
    assert "cell 12 of 12: product - real_world" in ended.stderr
    facts = read_benchmark(tmp_path / "benchmark")
    assert facts.ks == (1, 5, 15)
    assert len(facts.rows) == 12 * (3 + 4)
    assert facts.command.startswith("ucdir benchmark office-home --methods")
    assert (tmp_path / "benchmark" / "results.md").read_text(encoding="utf-8").startswith("# office-home")


def test_the_table_of_domainnet(tmp_path: Path) -> None:
    """Its six pairs, at its cut-offs."""
    spec = smaller(DOMAINNET)
    source = write_tree(tmp_path / "source", files_of(spec))
    with preparing(tmp_path / "domainnet"):
        prepare_dataset(spec, source, tmp_path / "domainnet")
    prepared = [str(tmp_path / "domainnet")]
    assert settings_of_methods(prepared, None, None, None, ())[FREE] == load_settings("domainnet")
    facts = benchmark(prepared, tmp_path / "out", ["frozen", "centred"], settings=small())
    assert facts.ks == (50, 100, 200)
    pairs = {frozenset((row.query, row.gallery)) for row in facts.rows}
    assert pairs == {frozenset(pair) for pair in spec.pairs}
    assert len(facts.rows) == 12 * 2
    assert "UEM, mean of all directions: mAP@All 34.4" in printed(facts)


def test_a_set_without_a_preset_has_as_many_clusters_as_classes(tmp_path: Path) -> None:
    spec = smaller(PACS)
    with preparing(tmp_path / "pacs"):
        prepare_dataset(spec, write_tree(tmp_path / "source", files_of(spec)), tmp_path / "pacs")
    prepared = [str(tmp_path / "pacs")]
    assert settings_of_methods(prepared, None, None, None, ["instance"])["instance"].gradient.num_clusters == (7,)
    assert settings_of_methods(prepared, None, "head", None, ())[FREE] == load_settings("head")
    given = settings_of_methods(prepared, {"method.num_clusters": 9}, None, None, ["coda"])
    assert given["coda"].gradient.num_clusters == (9,)


def test_folders_of_ones_own_have_as_many_clusters_as_classes(folders: tuple[str, str]) -> None:
    assert settings_of_methods(folders, None, None, None, ["ucdir"])["ucdir"].gradient.num_clusters == (10,)
    assert settings_of_methods(folders, None, "quick", None, ())[FREE] == load_settings("quick")
    drawn = settings_of_methods(folders, {"align.draw": 1}, None, None, ["frozen", "align"])
    assert {settings.align.draw for settings in drawn.values()} == {1}


def test_training_free_rows_alone_need_no_settings(folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes count clusters for methods that learn; folders are listed once for all of them."""
    assert settings_of_methods(folders, None, None, None, ["frozen", "centred"])[FREE].aligns
    listed: list[tuple[str, ...]] = []

    def counting(sources: Sequence[str], **given: Any) -> Any:
        listed.append(tuple(sources))
        return load_domains(sources, **given)

    monkeypatch.setattr("ucdir.benchmarking.plan.load_domains", counting)
    assert len(settings_of_methods(folders, None, None, None, ["instance", "ucdir", "coda", "align"])) == 5
    assert listed == [folders]


def test_published_figures_stand_beside_what_they_are_about() -> None:
    some, other = [frozenset(("art", "clipart"))], [frozenset(("clipart", "product"))]
    assert published_figures("domainnet", 345, some, True) == published_figures("pacs", 7, some, True) == ()
    assert published_figures("office-home", 65, some, False) == ()
    assert {figure.query for figure in published_figures("office-home", 65, other, False)} == {"product", "clipart"}
    assert {figure.method for figure in published_figures("office-home", 65, some, True)} == {
        "UCDIR",
        "CoDA",
        "DG-UCDIR",
        "UEM",
    }


def test_published_averages_do_not_stand_beside_a_part_of_the_data_set(tmp_path: Path) -> None:
    """Neither where domains were left out, nor where pairs were, nor under figures of held-out images."""
    spec = smaller(DOMAINNET)
    source = write_tree(tmp_path / "source", files_of(spec))
    with preparing(tmp_path / "domainnet"):
        prepare_dataset(spec, source, tmp_path / "domainnet")
    prepared = [str(tmp_path / "domainnet")]
    facts = benchmark(prepared, tmp_path / "one", ["frozen"], ["clipart-sketch"], settings=small())
    assert facts.published == ()
    facts = benchmark(prepared, tmp_path / "held", ["frozen"], protocols=["held-out"], settings=small())
    assert facts.published == ()
    document = tmp_path / "domainnet" / "dataset.json"
    content = json.loads(document.read_text(encoding="utf-8"))
    content["pairs"] = content["pairs"][:1]
    content["domains"] = [domain for domain in content["domains"] if domain["name"] in content["pairs"][0]]
    document.write_text(json.dumps(content), encoding="utf-8")
    assert benchmark(prepared, tmp_path / "part", ["frozen"], settings=small()).published == ()


# Cells


def test_every_row_of_every_cell(first: tuple[Path, BenchmarkFacts]) -> None:
    out, facts = first
    found = {(row.query, row.method, row.epoch, row.seed) for row in facts.rows}
    queries = ("photo", "drawing")
    free = {(query, method, None, 0) for query in queries for method in ("frozen", "smoothed")}
    epochs = ("last", "label-free", "label-free + smoothed", "oracle")
    trained = {(query, "instance", epoch, seed) for query in queries for epoch in epochs for seed in (0, 1)}
    assert found == free | trained
    assert len(facts.rows) == len(found)
    assert set(facts.rows[0].metrics) == {"P@1", "P@3", "capped P@1", "capped P@3", "mAP@All", "chance"}
    assert "Chance, the expected P@k of a random ranking: photo → drawing 10.0" in printed(facts)
    assert facts.notes[0].startswith("Images: drawing ")
    assert facts.notes[1:] == ("Trained with 3 clusters of each domain.",)
    assert read_benchmark(out) == facts
    assert facts.choice is not None
    assert facts.choice.runs == 2
    assert "Label-free choice of the epoch, 2 runs" in printed(facts)
    assert "Mean of all directions" in (out / "report.html").read_text(encoding="utf-8")


def test_what_is_finished_is_not_run_again(
    first: tuple[Path, BenchmarkFacts], folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, facts = first
    said: list[str] = []
    monkeypatch.setattr("ucdir.benchmarking.cells.carry_out", None)
    again = benchmark(folders, out, ["frozen", "smoothed", "instance"], seeds=2, ks=(1, 3), settings=small(), log=said.append)
    assert again.rows == facts.rows
    assert said == ["3 of 3 cells are already finished"]
    fewer = benchmark(folders, out, ["frozen", "instance"], seeds=1, ks=(1, 3), settings=small())
    assert fewer.rows == tuple(row for row in facts.rows if row.seed == 0 and row.method != "smoothed")


def test_a_benchmark_that_broke_off_goes_on(
    first: tuple[Path, BenchmarkFacts], folders: tuple[str, str], tmp_path: Path
) -> None:
    begun: list[str] = []

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Any]:
        begun.append(description)
        if description == "epoch 2/2" and begun.count(description) == 2:
            raise KeyboardInterrupt
        yield lambda count: None

    wanted = (["frozen", "smoothed", "instance"], (), 2, ("paper",), (1, 3), small())
    with pytest.raises(InterruptedRun, match=r"stopped with 2 of 3 cells finished\. Run the same command again"):
        benchmark(folders, tmp_path / "out", *wanted, progress=progress)
    broken_off = read_benchmark(tmp_path / "out")
    assert {row.seed for row in broken_off.rows} == {0}
    assert broken_off.notes[0].startswith("UNFINISHED: 2 of 3 cells.")
    said: list[str] = []
    facts = benchmark(folders, tmp_path / "out", *wanted, log=said.append)
    assert said[0] == "2 of 3 cells are already finished"
    assert facts.rows == first[1].rows
    assert facts.notes == first[1].notes


def test_what_is_left_is_told_from_trained_cells_alone(folders: tuple[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    methods = ["frozen", "instance"]
    benchmark(folders, tmp_path / "out", methods, seeds=2, settings=small(optimiser__epochs=1), log=said.append)
    free, first, last = (sentence for sentence in said if sentence.startswith("cell "))
    assert ("left" in free, first.endswith("; less than a minute left"), "left" in last) == (False, True, False)
    assert time_left([], 5, 1) == time_left([60.0], 0, 1) == ""
    assert time_left([60.0, 120.0], 4, 1) == "; about 6 min left"
    assert time_left([60.0, 120.0], 4, 2) == time_left([60.0, 120.0], 2, 1) == "; about 3 min left"


def test_several_workers_find_the_same(first: tuple[Path, BenchmarkFacts], folders: tuple[str, str], tmp_path: Path) -> None:
    methods = ["frozen", "smoothed", "instance"]
    facts = benchmark(folders, tmp_path / "out", methods, seeds=2, ks=(1, 3), settings=small(), devices=("cpu", "cpu"))
    assert facts.rows == first[1].rows


def test_cells_of_other_settings_are_not_mixed_in(first: tuple[Path, BenchmarkFacts], folders: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"seed0' was started with another optimiser.epochs \(2\) than requested now \(5\)"):
        benchmark(folders, first[0], ["instance"], seeds=1, settings=small(optimiser__epochs=5))


def test_the_training_free_cell_knows_no_training(first: tuple[Path, BenchmarkFacts], folders: tuple[str, str]) -> None:
    """Neither its settings nor its sizes: what was scored before goes with any training."""
    other = small(optimiser__epochs=5, method__num_clusters=500)
    facts = benchmark(folders, first[0], ["frozen"], ks=(1, 3), settings=other)
    assert facts.rows == tuple(row for row in first[1].rows if row.method == "frozen")
    with pytest.raises(UsageError, match=r"started with another encoder.image_size \(32\)"):
        benchmark(folders, first[0], ["frozen"], settings=small(encoder__image_size=48))


def test_a_smaller_request_says_what_goes_from_the_tables(folders: tuple[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    for methods in (["frozen", "centred"], ["frozen"]):
        benchmark(folders, tmp_path / "out", methods, settings=small(), log=said.append)
    assert f"2 rows of the tables in '{tmp_path / 'out'}' were not requested now and are removed" in said[-2]


def test_other_images_are_not_mixed_in(folders: tuple[str, str], tmp_path: Path) -> None:
    copies = [str(shutil.copytree(folder, tmp_path / Path(folder).name)) for folder in folders]
    benchmark(copies, tmp_path / "out", ["frozen"], settings=small())
    gone = next(iter(sorted(Path(copies[0]).rglob("*.jpg"))))
    gone.unlink()
    with pytest.raises(UsageError, match=r"domain 'photo' has other images or classes \(\d+\) than the cells"):
        benchmark(copies, tmp_path / "out", ["frozen"], settings=small())


def test_a_cell_goes_on_with_another_device(folders: tuple[str, str], tmp_path: Path) -> None:
    cell = tmp_path / "out" / "cells" / "photo" / "drawing" / "paper" / "instance-seed0"
    benchmark(folders, tmp_path / "out", ["instance"], seeds=1, settings=small())
    config = cell / "config.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('device = "cpu"', 'device = "cuda:7"'), encoding="utf-8")
    benchmark(folders, tmp_path / "out", ["instance"], seeds=1, ks=(2,), settings=small(), devices=("cpu",))


def test_two_at_once(first: tuple[Path, BenchmarkFacts], folders: tuple[str, str]) -> None:
    with (
        locked(first[0], "held by this test"),
        pytest.raises(UcdirError, match="being written by another ucdir benchmark"),
    ):
        benchmark(folders, first[0], ["frozen"], settings=small())


# Held-out images


def test_held_out_images_are_not_trained_on(folders: tuple[str, str], tmp_path: Path) -> None:
    facts = benchmark(folders, tmp_path / "out", ["frozen", "instance"], seeds=1, protocols=["held-out"], settings=small())
    assert {row.protocol for row in facts.rows} == {"held-out"}
    for name, folder in zip(("photo", "drawing"), folders, strict=True):
        manifest = tmp_path / "out" / "splits" / f"{name}.csv"
        sides = {side: set(load_domain(manifest, split=side).paths) for side in ("train", "test")}
        assert sides["train"] | sides["test"] == {path.absolute() for path in load_domain(Path(folder)).paths}
        assert not sides["train"] & sides["test"]
        assert 0.05 < len(sides["test"]) / len(sides["train"]) < 0.6
        (run,) = (tmp_path / "out" / "cells").glob("*/*/held-out/instance-seed0")
        trained_on = (run / "images.csv").read_text(encoding="utf-8")
        assert all(str(path) in trained_on for path in sides["train"])
        assert not any(str(path) in trained_on for path in sides["test"])


def test_domains_of_partial_protocols_do_not_hold_the_same_classes(folders: tuple[str, str], tmp_path: Path) -> None:
    """Each seed has images of its own, for the training-free methods as well."""
    out = tmp_path / "out"
    facts = benchmark(folders, out, ["frozen", "align"], seeds=2, protocols=["half-a", "private"], ks=(5,), settings=small())
    assert {(row.protocol, row.method, row.seed) for row in facts.rows} == {
        (protocol, method, seed) for protocol in ("half-a", "private") for method in ("frozen", "align") for seed in (0, 1)
    }
    for seed in (0, 1):
        splits = out / "splits" / "private" / "photo-drawing" / f"seed{seed}"
        own = [set(load_domain(splits / f"{name}.csv").classes or ()) for name in ("photo", "drawing")]
        assert own[0] - own[1]
        assert own[1] - own[0]
    again: list[str] = []
    benchmark(folders, out, ["frozen", "align"], seeds=2, protocols=["half-a"], ks=(5,), settings=small(), log=again.append)
    assert "4 of 4 cells are already finished" in again


def test_what_is_held_out_does_not_depend_on_where_the_data_lies(folders: tuple[str, str], tmp_path: Path) -> None:
    found = []
    for place in ("one", "deeper/two"):
        manifests = []
        for domain in load_domains(folders):
            copy = shutil.copytree(domain.source, tmp_path / place / domain.name)
            lines = [
                f"{copy / path.relative_to(domain.source)},{name}"
                for path, name in zip(domain.paths, domain.classes or (), strict=True)
            ]
            manifests.append(tmp_path / place / f"{domain.name}.csv")
            manifests[-1].write_text("\n".join(["path,class", *lines]), encoding="utf-8")
        benchmark([str(m) for m in manifests], tmp_path / place / "out", ["frozen"], protocols=["held-out"], settings=small())
        held = load_domain(tmp_path / place / "out" / "splits" / "photo.csv", split="test")
        found.append([path.relative_to(tmp_path / place) for path in held.paths])
    assert found[0] == found[1]


def test_the_split_of_a_manifest_is_used(folders: tuple[str, str], tmp_path: Path) -> None:
    manifests = []
    for domain in load_domains(folders):
        lines = [
            f"{path},{name},{'test' if row % 2 else 'train'}"
            for row, (path, name) in enumerate(zip(domain.paths, domain.classes, strict=True))
        ]
        manifests.append(tmp_path / f"{domain.name}.csv")
        manifests[-1].write_text("\n".join(["path,class,split", *lines]), encoding="utf-8")
    benchmark([str(m) for m in manifests], tmp_path / "out", ["frozen"], protocols=["held-out"], settings=small())
    assert not (tmp_path / "out" / "splits").exists()


def test_too_few_images_to_hold_some_out(tmp_path: Path) -> None:
    drawn = draw_collections(tmp_path / "d", images_per_class=4, size=40)
    for folder in (drawn.photo, drawn.drawing):
        for kind in sorted(folder.iterdir())[2:]:
            shutil.rmtree(kind)
        for kept in folder.iterdir():
            for file in sorted(kept.iterdir())[1:]:
                file.unlink()
    wanted = ([str(drawn.photo), str(drawn.drawing)], tmp_path / "out", ["frozen"])
    with pytest.raises(UsageError, match=r"of the 2 images of domain '\w+' [02] would be held out \(one in 5"):
        benchmark(*wanted, protocols=["held-out"], settings=small())


def test_images_that_came_since_the_split(folders: tuple[str, str], tmp_path: Path) -> None:
    benchmark(folders, tmp_path / "out", ["frozen"], protocols=["held-out"], settings=small())
    file = tmp_path / "out" / "splits" / "photo.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("train", "test", 1), encoding="utf-8")
    with pytest.raises(UsageError, match="images of domain 'photo' differ from those listed in"):
        benchmark(folders, tmp_path / "out", ["frozen"], protocols=["held-out"], settings=small())


# What does not exist


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["ucdri"]}, r"unknown method 'ucdri'\. Did you mean ucdir"),
        ({"methods": []}, "no method is named"),
        ({"pairs": ["photo-drawin"]}, r"unknown pair 'photo-drawin'\. Did you mean photo-drawing"),
        ({"protocols": ["heldout"]}, "Did you mean held-out"),
        ({"seeds": 0}, "--seeds 0: expected 1 or more"),
        ({"ks": (0,)}, "k=0: expected 1 or more"),
        ({"settings": small(run__seed=7)}, "run.seed=7 is set by --seeds here"),
        ({"settings": small(method__name="coda")}, "method.name=coda is set by --methods here"),
        ({"settings": small(method__num_clusters=500), "methods": ["ucdir"]}, "num_clusters=500 is more than the"),
        ({"devices": ["cuda:9"]}, "cuda"),
    ],
)
def test_what_does_not_exist(folders: tuple[str, str], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UcdirError, match=message):
        benchmark(**{"sources": folders, "out": tmp_path / "out", "settings": small(), **change})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("sources", "message"), [((), "nothing to compare"), (("office-home",), "ucdir data prepare NAME")])
def test_sources_that_cannot_be_compared(sources: Sequence[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        benchmark(sources, tmp_path / "out")


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")], ids=["in turn", "side by side"])
def test_a_cell_that_fails_is_named_and_the_others_go_on(
    folders: tuple[str, str], tmp_path: Path, devices: tuple[str, ...]
) -> None:
    (tmp_path / "out" / "cells" / "photo" / "drawing" / "paper" / "instance-seed0").mkdir(parents=True)
    (tmp_path / "out" / "cells" / "photo" / "drawing" / "paper" / "instance-seed0" / "mine.txt").write_text("not a run")
    said: list[str] = []
    error = r"cell photo - drawing, paper, instance, seed 0: '.*' already exists.* 2 of 3 cells are finished"
    with pytest.raises(UsageError, match=error):
        benchmark(
            folders, tmp_path / "out", ["frozen", "instance"], seeds=2, settings=small(), devices=devices, log=said.append
        )
    assert any(sentence.startswith("failed: cell photo - drawing, paper, instance, seed 0") for sentence in said)
    assert {row.seed for row in read_benchmark(tmp_path / "out").rows if row.method == "instance"} == {1}
    assert "UNFINISHED: 2 of 3 cells" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_whatever_ends_one_training_does_not_end_the_others(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(out: Path, *given: Any, **named: Any) -> Any:
        if out.name == "instance-seed0":
            raise MemoryError
        return carry_out(out, *given, **named)

    monkeypatch.setattr("ucdir.benchmarking.cells.carry_out", failing)
    with pytest.raises(UcdirError, match=r"instance, seed 0: MemoryError 1 of 2 cells are finished") as caught:
        benchmark(folders, tmp_path / "out", ["instance"], seeds=2, settings=small())
    assert isinstance(caught.value.__cause__, MemoryError)


def test_a_run_of_which_every_epoch_collapsed_has_its_last_row_alone_and_is_named(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ucdir.learn.trainer.is_collapsed", lambda rows: True)
    facts = benchmark(folders, tmp_path / "out", ["instance"], seeds=1, settings=small())
    assert {row.epoch for row in facts.rows} == {"last"}
    assert facts.choice is None
    assert "photo - drawing, paper, instance, seed 0: every epoch collapsed." in facts.notes[0]
    assert "every epoch collapsed" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_try_without_the_weights_changes_nothing(folders: tuple[str, str], tmp_path: Path) -> None:
    """Weights that are not there are told once; damaged ones fail each cell. Neither is in the way of the right ones."""
    wrong, right = tmp_path / "wrong.safetensors", tmp_path / "right.safetensors"
    with pytest.raises(UcdirError, match=r"pretrained weights not found: '.*wrong.safetensors'"):
        benchmark(folders, tmp_path / "out", ["frozen"], settings=small(encoder__weights=str(wrong)))
    assert not (tmp_path / "out").exists()
    wrong.write_bytes(b"no weights")
    with pytest.raises(UcdirError, match="cell photo - drawing, paper, training-free, seed 0"):
        benchmark(folders, tmp_path / "out", ["frozen"], settings=small(encoder__weights=str(wrong)))
    save_file(build_encoder("tiny_network:tiny", "none", 32).backbone.state_dict(), right)
    rows = benchmark(folders, tmp_path / "out", ["frozen"], settings=small(encoder__weights=str(right))).rows
    relative = os.path.relpath(right)
    assert benchmark(folders, tmp_path / "out", ["frozen"], settings=small(encoder__weights=relative)).rows == rows


def test_folders_are_listed_once_however_many_cells_there_are(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[tuple[str, ...]] = []

    def counting(sources: Sequence[str], **given: Any) -> Any:
        listed.append(tuple(sources))
        return load_domains(sources, **given)

    monkeypatch.setattr("ucdir.benchmarking.plan.load_domains", counting)
    monkeypatch.setattr("ucdir.benchmarking.plan.run_cells", lambda *given: pytest.exit("the cells would run now"))
    with pytest.raises(pytest.exit.Exception):
        benchmark(folders, tmp_path / "out", ["frozen", "instance", "ucdir", "coda"], seeds=9, settings=small())
    assert len(listed) == 3  # both together, then each


@pytest.mark.parametrize("end", ["killed", "an error"])
def test_workers_end_with_their_parent(tmp_path: Path, end: str) -> None:
    """At once, in the middle of their work."""
    script = (
        "import os, time\n"
        "from ucdir.benchmarking.cells import leashed_workers\n"
        "if __name__ == '__main__':\n"
        "    with leashed_workers(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 100)\n"
        "        input()\n"
        "        raise SystemExit(7)\n"
    )
    (tmp_path / "parent.py").write_text(script, encoding="utf-8")
    command = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        if end == "killed":
            parent.kill()
        else:
            parent.stdin.write("\n")
            parent.stdin.flush()
            assert parent.wait(timeout=600) == 7
    for _ in range(300):
        if not is_running(worker):
            break
        time.sleep(0.1)
    assert not is_running(worker)


def is_running(process: int) -> bool:
    """Whether a process is there, and no zombie that nobody has asked for yet."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"


# Tables, from numbers made by hand


def row(query: str, gallery: str, method: str, epoch: str | None, seed: int, value: float) -> BenchmarkRow:
    return BenchmarkRow(query, gallery, method, epoch, "paper", seed, {"P@5": value, "mAP@All": value / 2})


@pytest.fixture
def by_hand() -> BenchmarkFacts:
    rows = [row(*way, "frozen", None, 0, value) for way, value in ((("a_1", "b"), 0.2), (("b", "a_1"), 0.4))]
    for seed, (there, back) in enumerate([(0.5, 0.3), (0.6, 0.4), (0.7, 0.2)]):
        rows += [row("a_1", "b", "ucdir", "last", seed, there), row("b", "a_1", "ucdir", "last", seed, back)]
    published = (PublishedFigure("all", "all", "UEM", "mAP@All", 0.344, "a paper"),)
    return BenchmarkFacts("ucdir benchmark a_1 b", "2026-01-01", "a machine", (5,), tuple(rows), published, name="made")


def test_means_and_deviations(by_hand: BenchmarkFacts) -> None:
    assert shown([0.5, 0.6, 0.7]) == "60.0 ± 10.0"
    assert shown([0.25]) == "25.0"
    assert shown([]) == shown([float("nan"), 0.1]) == "–"
    ucdir = [entry for entry in by_hand.rows if entry.method == "ucdir"]
    assert seed_values(ucdir, [("a_1", "b"), ("b", "a_1")], "P@5") == pytest.approx([0.4, 0.5, 0.45])
    assert seed_values(ucdir[:5], [("a_1", "b"), ("b", "a_1")], "P@5") == pytest.approx([0.4, 0.5])  # the third lacks a way


def test_the_table(by_hand: BenchmarkFacts) -> None:
    lines = printed(by_hand).splitlines()
    (last,) = [line.split() for line in lines if line.startswith("ucdir, last") and line.count("±") == 4]
    assert " ".join(last) == "ucdir, last 60.0 ± 10.0 30.0 ± 10.0 45.0 ± 5.0 22.5 ± 2.5"
    assert any("Published: UEM, mean of all directions: mAP@All 34.4 (a paper" in line for line in lines)


@pytest.fixture
def wide() -> BenchmarkFacts:
    """Three pairs, five lines, four cut-offs, two seeds: means too wide for 80 characters."""
    metrics = {"P@1": 0.4, "P@5": 0.3, "P@15": 0.2, "P@50": 0.1, "mAP@All": 0.05, "chance": 0.02}
    rows = [
        BenchmarkRow(*way, method, epoch, "paper", seed, {name: value + seed / 10 for name, value in metrics.items()})
        for way in permutations(("art", "real_world", "clipart"), 2)
        for method, epoch in (("frozen", None), *(("ucdir", epoch) for epoch in EPOCHS[1:]))
        for seed in ((0, 1) if epoch else (0,))
    ]
    return BenchmarkFacts("ucdir benchmark", "2026-01-01", "a machine", (1, 5, 15, 50), tuple(rows), name="made")


@pytest.mark.parametrize(("width", "left_out"), [(60, "P@1, P@5, P@15"), (80, "P@1"), (100, "")])
def test_no_cell_breaks_in_a_narrow_terminal(wide: BenchmarkFacts, width: int, left_out: str) -> None:
    text = printed(wide, width)
    tables = text[: text.index("Percent")]
    assert re.findall(r"^(.+) did not fit; results.md has all\.", text, re.MULTILINE) == ([left_out] if left_out else [])
    cells = len(EPOCHS[1:]) * (3 * 4 + 5 - len(left_out.split()))  # of trained lines: four columns a pair, and the means
    assert tables.count("±") == len(re.findall(r"\d\d?\.\d ± 7\.1(?!\S)", tables)) == cells
    assert "…" not in tables


def test_one_pair_has_no_table_of_means(by_hand: BenchmarkFacts, wide: BenchmarkFacts) -> None:
    assert "Mean of all directions" not in printed(by_hand)
    assert "Mean of all directions" in printed(wide)
    assert "Mean of all directions" in benchmark_markdown(by_hand)


def test_the_live_table_leaves_nothing_behind(
    wide: BenchmarkFacts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even one that is taller than the terminal; what was said stays, and footnotes are no part of it."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "LINES": "10", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    with live_table() as given:
        log, show_facts = given["log"], given["show"]
        show_facts(wide)
        log("cell 1 of 2")
        time.sleep(0.6)  # it is drawn four times a second
    told = capsys.readouterr().err
    assert "real_world" in told
    assert "Chance" not in told
    assert [line for line in left_on_screen(told, height=10) if line] == ["cell 1 of 2"]


def left_on_screen(told: str, height: int) -> list[str]:
    """The lines of a terminal, and those that have left it at the top, after text with the control codes of rich."""
    lines, row = [""], 0
    for code, text in re.findall(r"(\x1b\[\??[\d;]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", told):
        if code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "\x1b[1A":
            row = max(row - 1, len(lines) - height, 0)
        elif code == "\x1b[2K":
            lines[row] = ""
        lines[row] += text
    return [line.strip() for line in lines]


def test_markdown(by_hand: BenchmarkFacts) -> None:
    text = benchmark_markdown(by_hand)
    assert "| ucdir, last | 60.0 ± 10.0 | 30.0 ± 10.0 | 45.0 ± 5.0 |" in text
    assert "| frozen | 20.0 | 40.0 | 30.0 |" in text
    assert "`ucdir benchmark a_1 b`\n\n2026-01-01: a machine." in text


def test_latex(by_hand: BenchmarkFacts) -> None:
    text = benchmark_latex(by_hand)
    assert "ucdir, last & 60.0 $\\pm$ 10.0 & 30.0 $\\pm$ 10.0 & 45.0 $\\pm$ 5.0 \\\\" in text
    assert "a\\_1 $\\to$ b" in text
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 3
