"""The README's commands, run as they stand there on a small drawn pair of folders."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ucdir.drawing.collection import draw_collections

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "--backbone tiny_network:tiny --weights none --image-size 32"


BLOCKS = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)


def commands(names_an_engine: bool = False) -> list[list[str]]:
    """Of the blocks for folders of one's own, or of the one for a gallery that is not a folder."""
    chosen = [block for block in BLOCKS if ("ENGINE" in block) == names_an_engine and "data prepare" not in block]
    return [
        shlex.split(line.replace("$ENGINE", "milvus:shop.db"), comments=True)
        for block in chosen
        for line in block.splitlines()
        if line.startswith("ucdir ")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, `sketches` and a `sketch.png`, as the README has them."""
    folder = tmp_path_factory.mktemp("readme")
    drawn = draw_collections(folder / "drawn", 3, seed=0)
    drawn.photo.rename(folder / "photos")
    drawn.drawing.rename(folder / "sketches")
    next((folder / "sketches").rglob("*.png")).rename(folder / "sketch.png")
    return folder


def test_there_are_the_five_commands_of_use() -> None:
    assert [command[1] for command in commands()] == ["check", "train", "evaluate", "index", "search", "serve"]
    assert [command[1] for command in commands(names_an_engine=True)] == ["index", "search", "serve"]


def test_they_run_one_after_the_other(folder: Path) -> None:
    *ending, serve = commands()
    for command in ending:
        smaller = shlex.split(SMALL) if command[1] == "train" else []
        finished = subprocess.run(
            [sys.executable, "-m", *command, *smaller], cwd=folder, capture_output=True, text=True, check=False, timeout=600
        )
        assert finished.returncode == 0, finished.stderr
    assert "data:image" in (folder / "hits.html").read_text(encoding="utf-8")
    pytest.importorskip("fastapi", reason="ucdir serve needs the extra 'serve'")
    process = subprocess.Popen([sys.executable, "-m", *serve, "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(found[1] for line in process.stdout if (found := re.match(r"Open (http://\S+)", line)))
        with urllib.request.urlopen(f"{address}health") as answer:
            assert json.load(answer)["galleries"] == 1
        if shutil.which("curl"):
            assert len(json.loads(asked_by_curl(address, folder))["hits"]) == 5
        process.terminate()
        assert process.wait(timeout=600) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def asked_by_curl(address: str, folder: Path) -> str:
    found = re.search(r"`(curl .*?)http://127.0.0.1:8000/(.*?)`", README)
    assert found
    return subprocess.run(
        [*shlex.split(found[1]), "--silent", f"{address}{found[2]}"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_the_same_in_milvus(folder: Path) -> None:
    """After the commands above."""
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed: pip install 'ucdir[milvus]'")
    for command in commands(names_an_engine=True)[:2]:
        finished = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=600)
        assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, flags=re.MULTILINE))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_and_pictures_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
