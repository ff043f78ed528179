"""What Windows lacks: `fcntl` and `resource` are blocked here, as if they did not exist. No real Windows was at hand."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ucdir

pytestmark = pytest.mark.slow

BLOCKED = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
MODULES = sorted(found.name for found in pkgutil.walk_packages(ucdir.__path__, "ucdir.") if not found.name.endswith("__main__"))


def blocked(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", BLOCKED + script, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_module_can_be_imported() -> None:
    for extra in ("fastapi", "onnxruntime", "matplotlib", "pymilvus"):
        pytest.importorskip(extra, reason=f"the extra with {extra} is not installed")
    blocked("import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)", *MODULES)


def test_a_command_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30), (name == "a" and "red") or "blue").save(tmp_path / name / "1.png")
    said = blocked("from ucdir.cli import main; main()", "check", tmp_path / "a", tmp_path / "b")
    assert "Next: ucdir train" in said


def test_a_lock_still_has_one_holder(tmp_path: Path) -> None:
    script = """
from pathlib import Path
from ucdir.errors import UcdirError
from ucdir.storage import locked
with locked(Path(sys.argv[1]), "busy"):
    try:
        with locked(Path(sys.argv[1]), "busy"):
            print("both")
    except UcdirError as error:
        print(error)
"""
    assert "is busy" in blocked(script, tmp_path / "place")
