"""Search one image collection with pictures from another that looks nothing like it.

The public names below are imported on first use, so that `import ucdir` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ucdir.commands.benchmark import benchmark
    from ucdir.commands.check import check
    from ucdir.commands.demo import demo
    from ucdir.commands.evaluate import evaluate
    from ucdir.commands.index import index
    from ucdir.commands.report import write_report
    from ucdir.commands.search import search
    from ucdir.commands.serve import serve
    from ucdir.commands.train import train
    from ucdir.embedding.compute import Compute
    from ucdir.embedding.embed import embed
    from ucdir.errors import UcdirError
    from ucdir.gallery.folder import Gallery
    from ucdir.images.domains import Domain, load_domain, load_domains
    from ucdir.images.opening import open_rgb
    from ucdir.model.encoder import Encoder
    from ucdir.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Compute",
    "Domain",
    "Encoder",
    "Gallery",
    "Settings",
    "UcdirError",
    "benchmark",
    "check",
    "demo",
    "embed",
    "evaluate",
    "index",
    "load_domain",
    "load_domains",
    "open_rgb",
    "search",
    "serve",
    "train",
    "write_report",
]

_HOME = {
    "Compute": "ucdir.embedding.compute",
    "Domain": "ucdir.images.domains",
    "Encoder": "ucdir.model.encoder",
    "Gallery": "ucdir.gallery.folder",
    "Settings": "ucdir.settings",
    "UcdirError": "ucdir.errors",
    "benchmark": "ucdir.commands.benchmark",
    "check": "ucdir.commands.check",
    "demo": "ucdir.commands.demo",
    "embed": "ucdir.embedding.embed",
    "evaluate": "ucdir.commands.evaluate",
    "index": "ucdir.commands.index",
    "load_domain": "ucdir.images.domains",
    "load_domains": "ucdir.images.domains",
    "open_rgb": "ucdir.images.opening",
    "search": "ucdir.commands.search",
    "serve": "ucdir.commands.serve",
    "train": "ucdir.commands.train",
    "write_report": "ucdir.commands.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ucdir' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
