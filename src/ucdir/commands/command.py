"""Turn a function into a command: its parameters become arguments and options, its docstring their help."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from inspect import Parameter, Signature, cleandoc, signature
from typing import Annotated, Any

from cyclopts import Parameter as Option

from ucdir.commands.console import is_helper, progress_and_log

NOT_OPTIONS = ("progress", "log", "show", "command", "begun", "settings", "batch_size")
FLAGS = {
    "as_domain": "--as",
    "ks": "--k",
    "protocols": "--protocol",
    "devices": "--device",
    "allow_hosts": "--allow-host",
}  # parameters whose flag has another name
SHORT = {"k": "-k"}
MAY_BE_STDOUT = ("json",)  # options that accept - as a file
METAVARS = {"sources": "DIR...", "galleries": "GALLERY...", "encoder": "RUN", "folder": "RUN|BENCHMARK"}
ENTRY = re.compile(r"(\w+(?:, \w+)*)  +(\S.*)")  # a docstring line: names, two or more spaces, their meaning
SET = Option(name="--set", metavar="KEY=VALUE", help="Any setting, as section.key=value.", negative=(), show_default=False)


def command(
    run: Callable[..., Any],
    show: Callable[..., None],
    optional: Sequence[str] = (),
    settings: Sequence[str] = (),
    adapt: Callable[[dict[str, Any]], None] = lambda given: None,
    supply: Callable[[], AbstractContextManager[Mapping[str, Any]]] = progress_and_log,
) -> Callable[..., None]:
    """Return a function for the command line that calls `run`, then `show` with the result.

    show       receives the result and, by name, parameters of `run`; its other parameters become options too
    optional   parameters with a default that are arguments, not options; those without a default always are
    settings   section.key of the settings that get a flag; `run` receives the given ones, and those of --set, as `settings`
    adapt      changes the given values before they reach `run`
    supply     context manager that yields the parameters through which `run` reports progress

    Of the processes that torchrun starts, only the first one prints.
    """
    of_run, of_show = _parameters(run, optional), _parameters(show, ())
    of_show.pop(next(iter(signature(show).parameters)))
    flags = _flags(settings)
    of_settings = dict(_setting_options(flags))
    merged = Signature(sorted({**of_run, **of_settings, **of_show, **of_run}.values(), key=lambda each: each.kind))

    def called(*arguments: Any, **options: Any) -> None:
        given = merged.bind(*arguments, **options).arguments
        if flags:
            from ucdir.settings import parse_assignments

            assigned = {key: given[name] for name, key in flags.items() if given.get(name) is not None}
            given["settings"] = assigned | parse_assignments(given.get("set_", ()))
        adapt(given)
        with supply() as supplied:
            takes = signature(run).parameters
            result = run(**{name: value for name, value in {**supplied, **given}.items() if name in takes})
        if not is_helper():
            show(result, **{name: value for name, value in given.items() if name in of_show})

    called.__signature__ = merged  # type: ignore[attr-defined]
    called.__annotations__ = {name: each.annotation for name, each in merged.parameters.items()}
    return called


def _parameters(function: Callable[..., Any], optional: Sequence[str]) -> dict[str, Parameter]:
    """Return the parameters that become options or arguments, with their help from the docstring."""
    meanings = dict(_entries(cleandoc(function.__doc__ or "")))
    return {
        name: _parameter(each, meanings.get(name, ""), each.default is Parameter.empty or name in optional)
        for name, each in signature(function).parameters.items()
        if name not in NOT_OPTIONS
    }


def _parameter(each: Parameter, meaning: str, is_argument: bool) -> Parameter:
    name = each.name.replace("_", "-")
    if is_argument:
        metavar = METAVARS.get(each.name, each.name.upper())
        option = Option(name=metavar, help=meaning, show_default=False)
        return each.replace(kind=Parameter.POSITIONAL_ONLY, annotation=Annotated[each.annotation, option])
    flag = FLAGS.get(each.name, f"--{name}")
    option = Option(
        name=flag,
        alias=SHORT.get(each.name),
        help=meaning,
        negative=f"--no-{name}" if each.default is True else (),
        show_default=_shown_default(each.default),
        allow_leading_hyphen=each.name in MAY_BE_STDOUT,
    )
    return each.replace(kind=Parameter.KEYWORD_ONLY, annotation=Annotated[each.annotation, option])


def _shown_default(default: Any) -> bool | Callable[[Any], str]:
    if isinstance(default, bool) or default in (None, ()):
        return False
    return ",".join if isinstance(default, tuple) else True


def _flags(settings: Sequence[str]) -> dict[str, str]:
    """Map parameters to section.key. Importing the settings is slow, so `ucdir search` does not."""
    if not settings:
        return {}
    from ucdir.settings import flag_of

    return {flag_of(key).strip("-").replace("-", "_"): key for key in settings}


def _setting_options(flags: Mapping[str, str]) -> Iterator[tuple[str, Parameter]]:
    """Yield an option for each setting with a flag, and --set for all other settings."""
    if not flags:
        return
    from ucdir.settings import flag_of, setting_field

    for name, key in flags.items():
        field = setting_field(key)
        accepted: Any = field.annotation
        option = Option(name=flag_of(key), help=field.description, negative=())
        yield name, Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[accepted | None, option])
    yield "set_", Parameter("set_", Parameter.KEYWORD_ONLY, default=(), annotation=Annotated[Sequence[str], SET])


def _entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield (name, meaning) of each `name, name   meaning` entry; indented lines continue an entry."""
    names, meaning = "", ""
    for line in [*docstring.splitlines(), ""]:
        found = ENTRY.fullmatch(line)
        if names and line.startswith("  "):
            meaning += f" {line.strip()}"
            continue
        yield from ((name, meaning) for name in names.split(", ") if name)
        names, meaning = found.groups() if found else ("", "")
