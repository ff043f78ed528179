"""What the command line makes of a function: its parameters are the arguments and options, its docstring is their help."""

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
}  # called otherwise in Python
SHORT = {"k": "-k"}
MAY_BE_STDOUT = ("json",)  # options whose file may be -
METAVARS = {"sources": "DIR...", "galleries": "GALLERY...", "encoder": "RUN", "folder": "RUN|BENCHMARK"}
ENTRY = re.compile(r"(\w+(?:, \w+)*)  +(\S.*)")  # of a docstring: names, two or more spaces, what they mean
SET = Option(name="--set", metavar="KEY=VALUE", help="Any setting, as section.key=value.", negative=(), show_default=False)


def command(
    run: Callable[..., Any],
    show: Callable[..., None],
    optional: Sequence[str] = (),
    settings: Sequence[str] = (),
    adapt: Callable[[dict[str, Any]], None] = lambda given: None,
    supply: Callable[[], AbstractContextManager[Mapping[str, Any]]] = progress_and_log,
) -> Callable[..., None]:
    """A function for the command line: calls `run` with its own parameters, then `show` with what came back.

    show       takes the result and, by name, parameters of `run` and options of its own
    optional   arguments that may be left out; parameters without a default are always arguments
    settings   section.key of settings that have a flag; `run` gets those given, and those of --set, as `settings`
    adapt      changes the given values, by parameter, before `run` sees them
    supply     the context in which `run` reports, and the parameters with which it does

    Processes that torchrun started show nothing, except for the first.
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
    """Those of a function that are options or arguments, with the help in its docstring."""
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
    """Parameter -> section.key. Only commands that have settings import them: `ucdir search` starts sooner without."""
    if not settings:
        return {}
    from ucdir.settings import flag_of

    return {flag_of(key).strip("-").replace("-", "_"): key for key in settings}


def _setting_options(flags: Mapping[str, str]) -> Iterator[tuple[str, Parameter]]:
    """An option for each setting with a flag, with the type and the meaning of the setting; and --set for all others."""
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
    """(name, meaning) of what a docstring lists as `name, name   meaning`, over several lines if those are indented."""
    names, meaning = "", ""
    for line in [*docstring.splitlines(), ""]:
        found = ENTRY.fullmatch(line)
        if names and line.startswith("  "):
            meaning += f" {line.strip()}"
            continue
        yield from ((name, meaning) for name in names.split(", ") if name)
        names, meaning = found.groups() if found else ("", "")
