"""The import rule of ARCHITECTURE.md, read from the imports themselves."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ucdir"
BASE = {"errors", "storage", "progress", "run_folder", "palette", "documents", "outside"}

ROOMS = (
    *("settings", "images", "datasets", "drawing", "model", "embedding", "retrieval", "scoring", "gallery", "learn", "report"),
    *("benchmarking", "web"),
)

# room -> rooms whose modules it may import, itself and BASE apart
ALLOWED = {
    "errors": set(),
    "storage": set(),
    "progress": set(),
    "run_folder": set(),
    "palette": set(),
    "documents": set(),
    "outside": set(),
    "settings": set(),
    "images": set(),
    "datasets": {"images"},
    "drawing": set(),
    "model": set(),
    "embedding": {"images", "model"},
    "retrieval": set(),
    "scoring": {"images", "model", "embedding", "retrieval"},
    "gallery": {"images", "model", "embedding", "retrieval", "scoring"},
    "learn": {"settings", "images", "model", "embedding", "retrieval", "scoring"},
    "report": {"settings", "images", "datasets", "model", "embedding", "retrieval", "scoring", "gallery", "learn"},
    "benchmarking": {"settings", "images", "datasets", "model", "embedding", "scoring", "retrieval", "learn", "report"},
    "web": {"images", "model", "retrieval", "gallery"},
    "commands": {*ROOMS},
    "cli": {*ROOMS, "commands"},
    "__main__": {"cli"},
}
PURE = ("learn/losses.py", "learn/schedules.py")
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
IN_ROOMS = [file for file in FILES if file != "__init__.py"]


def imported(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    """Full names of the modules imported anywhere in `tree`; `from a import b` counts as a and as a.b."""
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            found += [(node.module or "", node), *((f"{node.module}.{alias.name}", node) for alias in node.names)]
    return found


def parsed(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text(encoding="utf-8"))


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def our_rooms(tree: ast.AST) -> set[str]:
    """Rooms of ours imported anywhere; names that `ucdir/__init__.py` itself holds, such as __version__, are none."""
    parts = [name.split(".") for name, _ in imported(tree) if name.split(".")[0] == "ucdir"]
    return {part[1] for part in parts if len(part) > 1 and part[1] in ALLOWED}


def others(tree: ast.AST) -> set[str]:
    """Packages of other people that are imported."""
    names = {name.split(".")[0] for name, _ in imported(tree)}
    return {name for name in names if name != "ucdir" and name not in sys.stdlib_module_names}


def test_every_file_lies_in_a_room() -> None:
    assert {room(file) for file in IN_ROOMS} <= ALLOWED.keys()


@pytest.mark.parametrize("file", IN_ROOMS)
def test_imports_point_one_way(file: str) -> None:
    allowed = ALLOWED[room(file)] | {room(file)} | (BASE if room(file) not in BASE else {"errors"})
    assert our_rooms(parsed(file)) <= allowed


@pytest.mark.parametrize("file", PURE)
def test_the_mathematics_imports_nothing_of_ours(file: str) -> None:
    tree = parsed(file)
    assert not our_rooms(tree)
    assert others(tree) <= {"torch", "numpy", "threadpoolctl"}


def test_only_the_command_line_imports_commands() -> None:
    importing = {file for file in IN_ROOMS if "commands" in our_rooms(parsed(file))}
    assert importing <= {"cli.py", *(file for file in FILES if room(file) == "commands")}


def reached_from(files: set[str]) -> set[str]:
    """Files of ours that `files` import, directly or not."""
    reached, waiting = set(), set(files)
    while waiting:
        file = waiting.pop()
        reached.add(file)
        for name, _ in imported(parsed(file)):
            target = name.removeprefix("ucdir.").replace(".", "/") + ".py"
            if name.startswith("ucdir.") and target in FILES and target not in reached:
                waiting.add(target)
    return reached


def test_searching_works_without_training_code() -> None:
    """Neither directly nor through anything that it imports."""
    rooms = ("images", "model", "embedding", "retrieval", "scoring", "gallery", "web")
    starts = {file for file in IN_ROOMS if room(file) in rooms or file.startswith("report/terminal/")}
    reached = reached_from(starts | {"report/search_page.py"})
    assert not {file for file in reached if room(file) in ("learn", "benchmarking", "commands", "cli", "settings")}


def test_the_command_line_starts_light() -> None:
    """At module level only errors of ours, cyclopts and the standard library."""
    tree = parsed("cli.py")
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert our_rooms(top) <= {"errors"}
    assert others(top) <= {"cyclopts"}


def test_the_package_itself_imports_nothing_at_once() -> None:
    """But for type checkers: the names of `ucdir` are imported on first use."""
    top = [node for node in parsed("__init__.py").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {name for name, _ in imported(ast.Module(top, []))} <= {
        "importlib",
        "importlib.import_module",
        "typing",
        "typing.Any",
        "typing.TYPE_CHECKING",
    }


EXTRAS = {
    "onnxruntime": {"model/runtime.py"},
    "onnx": set[str](),
    "matplotlib": {"report/plots/png.py"},
    "faiss": {"retrieval/exact_search.py"},
    "pymilvus": {"gallery/milvus_store.py"},
    "milvus_lite": {"gallery/milvus_store.py"},
}


def test_extras_are_imported_in_their_places_and_never_at_once() -> None:
    core = {
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "PIL",
        "pyarrow",
        "pydantic",
        "cyclopts",
        "rich",
        "safetensors",
        "threadpoolctl",
        "filelock",
        "platformdirs",
        "jinja2",
        "markupsafe",
    }
    for file in (file for file in FILES if room(file) != "web"):
        tree = parsed(file)
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert others(top) <= core, file
        assert all(file in EXTRAS[name] for name in others(tree) - core), file


LIGHT = ("commands/search.py", "gallery/locate.py", "report/terminal/hits.py", "report/search_page.py", "model/runtime.py")


def test_searching_starts_without_torch() -> None:
    """Nothing that `ucdir search` imports at once leads to torch."""
    reached, waiting = set(), set(LIGHT)
    while waiting:
        file = waiting.pop()
        reached.add(file)
        top = ast.Module([node for node in parsed(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not others(top) & {"torch", "torchvision", "timm", "safetensors"}, file
        for name, _ in imported(top):
            target = name.removeprefix("ucdir.").replace(".", "/") + ".py"
            if name.startswith("ucdir.") and target in FILES and target not in reached:
                waiting.add(target)
    assert "retrieval/exact_search.py" in reached


@pytest.mark.parametrize("file", [file for file in FILES if room(file) == "web"])
def test_the_service_needs_no_torch(file: str) -> None:
    assert not others(parsed(file)) & {"torch", "torchvision", "timm"}


def test_the_map_in_the_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("| room |") : text.index("\n\n", text.index("| room |"))]
    named = {name.rstrip("/").removesuffix(".py") for row in table.splitlines()[2:] for name in cells(row)[0]}
    assert named - {"presets"} == ALLOWED.keys() - {"__main__"}


def test_the_map_in_the_architecture_allows_what_is_allowed_here() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in ("datasets", "embedding", "retrieval", "scoring", "gallery", "learn", "report", "benchmarking", "web"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}/`"))
        assert set(cells(row)[2]) - BASE == ALLOWED[name]


def cells(row: str) -> list[list[str]]:
    """The words in backticks of each cell of a row."""
    return [re.findall(r"`([\w./]+)`", cell) for cell in row.strip("|").split("|")]
