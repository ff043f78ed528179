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
    from ucdir.config import Settings
    from ucdir.data.domain import Domain, load_domain, load_domains
    from ucdir.data.image import open_rgb
    from ucdir.errors import UcdirError
    from ucdir.model.encoder import Encoder
    from ucdir.retrieval.embed import embed
    from ucdir.retrieval.gallery import Gallery

__version__ = "0.1.0"

__all__ = [
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
    "Domain": "ucdir.data.domain",
    "Encoder": "ucdir.model.encoder",
    "Gallery": "ucdir.retrieval.gallery",
    "Settings": "ucdir.config",
    "UcdirError": "ucdir.errors",
    "benchmark": "ucdir.commands.benchmark",
    "check": "ucdir.commands.check",
    "demo": "ucdir.commands.demo",
    "embed": "ucdir.retrieval.embed",
    "evaluate": "ucdir.commands.evaluate",
    "index": "ucdir.commands.index",
    "load_domain": "ucdir.data.domain",
    "load_domains": "ucdir.data.domain",
    "open_rgb": "ucdir.data.image",
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
