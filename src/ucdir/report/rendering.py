"""HTML and SVG from the templates in `templates/`. jinja2 escapes everything in them that is not markup itself."""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> Markup:
    """The text of a template, filled in."""
    return Markup(ENVIRONMENT.get_template(f"{template}.jinja").render(values))


def asset(name: str) -> Markup:
    """A style sheet or script of the report, as it is."""
    return Markup(resources.files("ucdir.report").joinpath("assets", name).read_text(encoding="utf-8"))


def printable(value: Any) -> Any:
    """Text without characters that no screen can show, whatever a file is called."""
    if not isinstance(value, str | Path) or isinstance(value, Markup):
        return value
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def source_hash(text: str) -> Markup:
    """How a Content-Security-Policy names an inline style or script."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")


ENVIRONMENT = Environment(
    loader=PackageLoader("ucdir.report"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=printable,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {"count": "{:,}".format, "short": "{:g}".format, "hash": source_hash}
ENVIRONMENT.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
