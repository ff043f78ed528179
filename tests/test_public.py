"""The public names, and that nothing heavy is imported before it is needed."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ucdir

HEAVY = {"torch", "torchvision", "numpy", "PIL", "timm", "pydantic", "pyarrow", "safetensors"}
TREE = ast.parse(Path(ucdir.__file__).read_text(encoding="utf-8"))


def modules_of(*arguments: str) -> set[str]:
    """Top-level modules that Python imports while it runs with these arguments."""
    result = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    lines = (line for line in result.stderr.splitlines() if line.startswith("import time:"))
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import ucdir"), ("-m", "ucdir", "--help"), ("-m", "ucdir", "--version")],
)
def test_nothing_heavy_is_imported_to_start(arguments: tuple[str, ...]) -> None:
    found = modules_of(*arguments)
    assert "ucdir" in found
    assert not found & HEAVY


def test_version() -> None:
    result = subprocess.run([sys.executable, "-m", "ucdir", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"ucdir {ucdir.__version__}\n"


def test_the_names_are_sorted_and_all_have_a_home() -> None:
    assert ucdir.__all__ == sorted(ucdir.__all__)
    assert set(ucdir._HOME) == set(ucdir.__all__)
    assert dir(ucdir) == ucdir.__all__


@pytest.mark.parametrize("name", ucdir.__all__)
def test_every_public_name_is_found_and_documented(name: str) -> None:
    found = getattr(ucdir, name)
    assert found is getattr(import_module(ucdir._HOME[name]), name)
    assert inspect.getdoc(found)
    assert found.__module__ == ucdir._HOME[name]


def test_type_checkers_see_the_same_names() -> None:
    """`if TYPE_CHECKING:` imports each public name from its home."""
    (block,) = [node for node in TREE.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == ucdir._HOME


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'ucdir' has no attribute 'serch'"):
        _ = ucdir.serch
    assert not hasattr(ucdir, "torch")


def test_public_functions_have_full_hints() -> None:
    for name in ("train", "write_report", "embed", "load_domain", "load_domains", "open_rgb"):
        signature = inspect.signature(getattr(ucdir, name))
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())
