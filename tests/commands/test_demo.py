"""`ucdir demo`, small: the whole chain in one real process."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ucdir.commands.demo import demo
from ucdir.errors import UsageError

pytestmark = pytest.mark.slow

SMALL = ["--images-per-class", "4", "--epochs", "1"]


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ucdir", "demo", "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_draws_learns_scores_searches_and_shows(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    finished = run(out, *SMALL)
    assert finished.returncode == 0, finished.stderr
    for row in ("chance", "untrained", "untrained, centred", "trained"):
        assert row in finished.stdout
    assert (out / "run" / "encoder" / "model.safetensors").is_file()
    assert f"{out}/run/report.html" in finished.stdout
    assert (out / "run" / "report.html").is_file()
    assert (out / "gallery" / "embeddings.npy").is_file()
    with Image.open(out / "hits.png") as picture:
        assert picture.width > 600


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="was not written by a demo"):
        demo(tmp_path)
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"
