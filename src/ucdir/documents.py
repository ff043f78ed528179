"""Our JSON files: a frozen dataclass in, the same dataclass out, checked by pydantic, with one rule for format versions.

A document begins with `format_version`; one without is of version 1. Fields that an older ucdir did not write have defaults.
A newer version than this ucdir knows is refused, because nothing says what has changed.
"""

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ucdir.errors import UcdirError

T = TypeVar("T")


class DamagedDocument(ValueError):
    """Text that is not such a document; the message says where it differs."""


def to_json(value: Any, format_version: int, ensure_ascii: bool = False) -> str:
    """A dataclass as JSON text; NaN becomes null."""
    content = json.loads(TypeAdapter(type(value)).dump_json(value))
    return json.dumps({"format_version": format_version, **content}, indent=2, ensure_ascii=ensure_ascii) + "\n"


def from_json(kind: type[T], text: str, format_version: int, name: str) -> T:
    """The document in a text; `name` says in errors what it is: gallery 'x'.

    raises    UcdirError for a newer version, DamagedDocument for anything that is not a `kind`
    """
    try:
        content = json.loads(text)
        found = content.get("format_version", 1)
        is_newer = found > format_version
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedDocument(str(error).splitlines()[0]) from error
    if is_newer:
        raise UcdirError(f"{name} has format {found}, this ucdir reads up to {format_version}. Update ucdir.")
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise DamagedDocument(f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from error
