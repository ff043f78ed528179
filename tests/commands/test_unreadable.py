"""Images that cannot be read, with the pixel cache on: left out and listed; too many end the run."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from in_process import Ended, ucdir
from small_run import GRADIENT

from ucdir.drawing.collection import draw_collections
from ucdir.embedding import backbone_features
from ucdir.learn.run_log import listed_images

pytestmark = pytest.mark.slow

SMALL = GRADIENT | {
    "optimiser.train": "head",
    "optimiser.epochs": 1,
    "optimiser.batch_size": 8,
}


class Collection:
    """Two drawn domains; of the photographs one is empty, one is corrupt and one vanishes."""

    def __init__(self, folder: Path) -> None:
        drawn = draw_collections(folder / "drawn", images_per_class=3, size=40)
        self.sources = (str(drawn.photo), str(drawn.drawing))
        self.images = len(list(drawn.photo.rglob("*.jpg")))
        self.empty, self.corrupt, self.vanishing, *_ = sorted(drawn.photo.rglob("*.jpg"))
        self.empty.write_bytes(b"")
        self.corrupt.write_bytes(self.corrupt.read_bytes()[:300])
        self.cache = folder / "cache"

    def left_out(self) -> dict[str, str]:
        return {str(self.empty): "empty file", str(self.corrupt): "truncated", str(self.vanishing): "file not found"}

    def run(self, *command: str, allowed: float, cwd: Path) -> Ended:
        settings = SMALL | {"data.cache_dir": str(self.cache), "data.max_unreadable": allowed}
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        return self.call(*command, *given, cwd=cwd)

    def call(self, *command: str, cwd: Path) -> Ended:
        """Run a command, while which a file vanishes: after files were listed, before any is read."""
        hashed = backbone_features.feature_file

        def feature_file(*rest: Any) -> Path:
            self.vanishing.unlink(missing_ok=True)
            return hashed(*rest)

        with patch.object(backbone_features, "feature_file", feature_file), chdir(cwd):
            ended = ucdir(*command, fails=None)
        assert not self.vanishing.exists()
        return ended


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def test_train_head_and_its_report(collection: Collection, tmp_path: Path) -> None:
    ended = collection.run("train", *collection.sources, "--out", "run", allowed=3 / collection.images, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert list((collection.cache / "features").iterdir())
    assert "skipped 3 unreadable images (listed in images.csv)" in ended.stderr + ended.stdout
    listed = listed_images(tmp_path / "run")
    assert {image.path: image.skipped for image in listed if image.skipped} == collection.left_out()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<b>3</b> left out as unreadable" in page
    for path, reason in collection.left_out().items():
        assert f"<code>{path}</code>: {reason}" in page


def test_train_head_ends_above_the_fraction(collection: Collection, tmp_path: Path) -> None:
    ended = collection.run("train", *collection.sources, "--out", "run", allowed=2.9 / collection.images, cwd=tmp_path)
    assert ended.returncode == 1
    assert f"3 of the {collection.images} images of domain 'photo' cannot be read" in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_report(collection: Collection, tmp_path: Path) -> None:
    """Of a run that could still read the file that vanishes now; another has been emptied, one has gone since."""
    content, vanishing = collection.vanishing.read_bytes(), collection.vanishing
    collection.vanishing = tmp_path / "never"
    collection.vanishing.touch()
    ended = collection.run("train", *collection.sources, "--out", "run", "--no-report", allowed=0.2, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert vanishing.read_bytes() == content
    emptied, gone = sorted(Path(collection.sources[0]).rglob("*.jpg"))[-2:]
    emptied.write_bytes(b"")
    gone.unlink()
    collection.vanishing = vanishing
    ended = collection.call("report", "run", "--device", "cpu", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for said in ("<b>2</b> left out as unreadable", "<b>1</b> gone since", "<b>2</b> unreadable now"):
        assert said in page
    for path, reason in ((emptied, "empty file"), (gone, "gone since"), (vanishing, "file not found")):
        assert f"<code>{path}</code>: {reason}" in page


def test_benchmark(collection: Collection, tmp_path: Path) -> None:
    """Training-free and trained; then the two that are left are more than the fraction allows."""
    wanted = ("--methods", "frozen,instance", "--seeds", "1", "--preset", "head", "--out")
    command = ("benchmark", *collection.sources, *wanted)
    ended = collection.run(*command, "out", allowed=3 / collection.images, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    (note,) = (note for note in results["notes"] if note.startswith("Left out as unreadable: 3 of photo"))
    for path, reason in collection.left_out().items():
        assert f"{path}: {reason}" in note
    assert {row["method"] for row in results["rows"]} == {"frozen", "instance"}
    strict = collection.run(*command, "strict", allowed=1.9 / collection.images, cwd=tmp_path)
    assert strict.returncode == 1
    assert "cannot be read" in strict.stderr
    assert "0 of 2 cells are finished" in " ".join(strict.stderr.split())
    assert "Traceback" not in strict.stderr
