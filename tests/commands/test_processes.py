"""Training, indexing and embedding by several processes, started by a real torchrun, with gloo on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import in_process
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from in_process import Ended
from torch.testing import assert_close

from ucdir.drawing.collection import draw_collections
from ucdir.learn.checkpoint import load_checkpoint
from ucdir.model.encoder import Encoder

pytestmark = pytest.mark.slow

START = [
    "--method",
    "ucdir",
    "--backbone",
    "tiny_network:tiny",
    "--weights",
    "none",
    "--image-size",
    "32",
    "--batch-size",
    "12",
    "--seed",
    "3",
]
START += ["--num-clusters", "3", "--learning-rate", "0.0003", "--device", "cpu", "--precision", "float32", "--workers", "1"]
START += ["--set", "method.cluster_start=0", "--set", "method.alignment_start=0", "--set", "method.cluster_full=0.3"]
START += ["--set", "encoder.dim=16", "--set", "method.entropy_temperature=0.1", "--set", "method.distance_temperature=0.1"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    drawn = draw_collections(tmp_path_factory.mktemp("drawn") / "d", images_per_class=6, size=40)
    (drawn.photo / "broken.jpg").write_bytes(b"no image")
    return [str(drawn.photo), str(drawn.drawing)]


def ucdir(count: int, *command: str) -> Ended:
    """`ucdir COMMAND` in this process, or in several started by torchrun."""
    if count == 1:
        return in_process.ucdir(*command, fails=None)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", "ucdir"]
    ended = subprocess.run(
        [*start, *command], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def train(count: int, out: Path, *more: str) -> Ended:
    ended = ucdir(count, "train", *more, "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def alone(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    train(1, out, *sources, *START, "--epochs", "2", "--set", "data.max_unreadable=0.1")
    return out


@pytest.fixture(scope="module")
def together(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("together") / "run"
    ended = train(2, out, *sources, *START, "--epochs", "2", "--set", "data.max_unreadable=0.1")
    return out, ended.stdout + ended.stderr


def figures(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def close(one: Path, other: Path, first_epochs: int) -> None:
    """The same terms to 1e-5; in later epochs, after roundings have grown, to 1e-4."""
    for mine, yours in zip(figures(one)[:first_epochs], figures(other)[:first_epochs], strict=True):
        for name, value in mine["terms"].items():
            allowed = 1e-5 if mine["epoch"] == 1 else 1e-4
            assert value == pytest.approx(yours["terms"][name], rel=allowed, abs=allowed), (mine["epoch"], name)


def test_two_processes_have_the_terms_of_one(alone: Path, together: tuple[Path, str]) -> None:
    close(alone, together[0], first_epochs=2)


def test_two_processes_learn_the_encoder_of_one(alone: Path, together: tuple[Path, str]) -> None:
    one, two = (Encoder.load(run / "encoder").state_dict() for run in (alone, together[0]))
    for name in (name for name, value in one.items() if value.is_floating_point()):  # not the count of batches
        assert_close(two[name], one[name], atol=1e-4, rtol=1e-3)
    banks = (load_checkpoint(run / "checkpoints" / "last.pt").banks for run in (alone, together[0]))
    for mine, yours in zip(*banks, strict=True):
        assert float((mine * yours).sum(dim=1).min()) > 0.999


def test_two_processes_write_the_files_of_one(alone: Path, together: tuple[Path, str]) -> None:
    def files(run: Path) -> list[str]:
        found = (file.relative_to(run) for file in run.rglob("*") if file.is_file() and "tensorboard" not in file.parts)
        return sorted(str(file) for file in found if "label-free" not in str(file) and "oracle" not in str(file))

    assert files(alone) == files(together[0])
    assert (alone / "images.csv").read_bytes() == (together[0] / "images.csv").read_bytes()
    assert (alone / "config.toml").read_bytes() == (together[0] / "config.toml").read_bytes()


def test_one_process_speaks(together: tuple[Path, str]) -> None:
    _, said = together
    assert said.count("epoch 2/2") == 1
    assert said.count("skipped:") == 1
    assert said.count("Wrote ") == 1
    assert (together[0] / "report.html").is_file()  # by the first process
    assert "2 processes share each step of 12 images of each domain" in said


def test_a_run_goes_on_with_another_number_of_processes(sources: list[str], alone: Path, tmp_path: Path) -> None:
    """One epoch by two processes, the second by one: as the first by one."""
    out = tmp_path / "run"
    stopping = "import sys, torch.distributed as d; from ucdir.learn import run as t; keep = t._keep\n"
    stopping += "def stop(*a):\n    keep(*a); raise SystemExit(9)\nt._keep = stop\nfrom ucdir.cli import main; main()"
    script = tmp_path / "stop.py"
    script.write_text(stopping, encoding="utf-8")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), "train"]
    command = [*start, *sources, *START, "--epochs", "2", "--set", "data.max_unreadable=0.1", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600)
    assert ended.returncode != 0
    assert len(figures(out)) == 1
    train(1, out, "--resume", "--no-report")
    close(alone, out, first_epochs=2)


def test_an_error_is_told_once(sources: list[str], together: tuple[Path, str]) -> None:
    ended = ucdir(2, "train", *sources, *START, "--out", str(together[0]))
    assert ended.returncode != 0
    assert ended.stderr.count("already exists") == 1


def test_steps_that_cannot_be_shared_are_refused(sources: list[str], tmp_path: Path) -> None:
    ended = ucdir(3, "train", *sources, *START, "--batch-size", "11", "--out", str(tmp_path / "run"))
    assert ended.returncode != 0
    assert ended.stderr.count("3 processes cannot share 22 keys a step evenly in 3 batch norm groups") == 1
    assert not (tmp_path / "run").exists()


def test_parts_of_a_step_learn_about_the_same(sources: list[str], alone: Path, tmp_path: Path) -> None:
    """Not the same: each part has batch statistics of its own. But nothing is lost, and the terms are near."""
    out = tmp_path / "run"
    train(
        1,
        out,
        *sources,
        *START,
        "--epochs",
        "1",
        "--set",
        "data.max_unreadable=0.1",
        "--set",
        "optimiser.accumulation_steps=3",
        "--no-report",
    )
    ours, whole = figures(out)[0]["terms"], figures(alone)[0]["terms"]
    assert ours["instance"] == pytest.approx(whole["instance"], rel=0.05)
    assert torch.isfinite(torch.tensor(ours["total"]))


# Embedding


def gallery_of(folder: Path) -> tuple[pa.Table, np.ndarray, dict[str, Any]]:
    told = json.loads((folder / "gallery.json").read_text(encoding="utf-8"))
    return pq.ParquetFile(folder / "images.parquet").read(), np.load(folder / "embeddings.npy"), told


def index(count: int, *more: str, device: str = "cpu") -> Ended:
    return ucdir(count, "index", "--device", device, "--precision", "float32", "--workers", "1", "--no-export", *more)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """More images than two processes embed at a time, one of them broken."""
    drawn = draw_collections(tmp_path_factory.mktemp("many") / "d", images_per_class=9, size=40)
    (drawn.photo / "broken.jpg").write_bytes(b"no image")
    return [str(drawn.photo), str(drawn.drawing)]


def test_two_processes_make_the_gallery_of_one(alone: Path, many: list[str], tmp_path: Path) -> None:
    """In several rounds: the rows, their order and what could not be read are those of one process."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert index(1, str(alone), *many, "--out", str(one)).returncode == 0
    ended = index(2, str(alone), *many, "--out", str(two))
    assert ended.returncode == 0, ended.stderr
    (images, rows, told), (others, other_rows, also_told) = gallery_of(one), gallery_of(two)
    assert len(images) > 2 * 64
    assert images.drop_columns(["mtime_ns", "ctime_ns"]).equals(others.drop_columns(["mtime_ns", "ctime_ns"]))
    np.testing.assert_allclose(other_rows, rows, atol=1e-5)
    assert told["unreadable"] == also_told["unreadable"]
    assert ended.stdout.count("Next: ucdir search") == 1
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".") and not file.name.endswith(".lock")]


def test_two_processes_follow_the_folders(alone: Path, sources: list[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(sources[0], photos)
    out = str(tmp_path / "gallery")
    assert index(1, str(alone), str(photos), "--out", out).returncode == 0
    first, second, *_ = sorted(photos.rglob("*.jpg"))
    first.unlink()
    shutil.copy(sorted(Path(sources[1]).rglob("*.png"))[0], second.with_name("new.png"))
    ended = index(2, str(alone), str(photos), "--out", out, "--json")
    assert ended.returncode == 0, ended.stderr
    changes = json.loads(ended.stdout)["changes"]
    assert (changes["added"], changes["removed"], changes["embedded"]) == (1, 1, 1)
    assert index(1, str(alone), str(photos), "--out", str(tmp_path / "anew")).returncode == 0
    (images, rows, _), (expected, expected_rows, _) = gallery_of(Path(out)), gallery_of(tmp_path / "anew")
    assert images["id"].equals(expected["id"])
    assert images["sha256"].equals(expected["sha256"])
    np.testing.assert_allclose(rows, expected_rows, atol=1e-5)


def test_two_processes_embed_what_one_embeds(alone: Path, sources: list[str], tmp_path: Path) -> None:
    for count in (1, 2):
        ended = ucdir(count, "embed", str(alone), *sources, "--out", str(tmp_path / str(count)), "--precision", "float32")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("Wrote ") == 1
    one, two = (np.load(tmp_path / f"{count}.npy") for count in (1, 2))
    np.testing.assert_allclose(two, one, atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.npy", "1.parquet", "2.npy", "2.parquet"]


@pytest.mark.parametrize("wrong", ["no encoder", "nothing readable", "no device"])
def test_what_stops_an_index_is_told_once(wrong: str, alone: Path, tmp_path: Path) -> None:
    """Before the images are looked at, and after."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.jpg").write_bytes(b"no image")
    encoder = str(tmp_path / "none") if wrong == "no encoder" else str(alone)
    device = "nowhere" if wrong == "no device" else "cpu"
    ended = index(2, encoder, str(tmp_path / "bad"), "--out", str(tmp_path / "gallery"), device=device)
    assert ended.returncode != 0
    assert len([line for line in ended.stderr.splitlines() if line.startswith("ucdir: ")]) == 1, ended.stderr
    assert not (tmp_path / "gallery").exists()


def test_a_helper_that_fails_stops_all(alone: Path, sources: list[str], tmp_path: Path) -> None:
    """An encoder that gives NaN: the first process says so, whoever saw it."""
    broken = tmp_path / "encoder"
    shutil.copytree(alone / "encoder", broken)
    encoder = Encoder.load(broken)
    with torch.no_grad():
        next(encoder.backbone.parameters()).fill_(float("nan"))
    encoder.save(broken)
    ended = index(2, str(broken), *sources, "--out", str(tmp_path / "gallery"))
    assert ended.returncode != 0
    assert ended.stderr.count("the encoder gives NaN or infinity") == 1
    assert not (tmp_path / "gallery").exists()
