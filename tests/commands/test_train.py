"""`train` from end to end on small drawn images: the same run again, interrupted and resumed, and everything it refuses."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from small_run import GRADIENT

from ucdir import cli
from ucdir.commands import train as command
from ucdir.commands.evaluate import evaluate
from ucdir.embedding.embed import Embeddings
from ucdir.errors import ImageError, InterruptedRun, UcdirError, UsageError
from ucdir.learn import run as module
from ucdir.learn import trainer as loop
from ucdir.learn.checkpoint import load_checkpoint
from ucdir.learn.clusters import Clusters, kmeans
from ucdir.learn.label_free import LabelFreeScores
from ucdir.learn.run import TrainResult
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.settings import Settings, is_read_by, load_settings, preset_names

pytestmark = pytest.mark.slow

train = partial(command.train, report=False)  # what a report holds is tested in test_report.py

SMALL = GRADIENT | {
    "method.encoder_momentum": 0.9,
    "method.cluster_start": 0.0,
    "method.cluster_full": 0.5,
    "method.alignment_start": 0.4,
    "method.entropy_temperature": 0.1,
    "optimiser.epochs": 3,
    "optimiser.batch_size": 4,
    "optimiser.learning_rate": 0.05,
    "data.workers": 2,
}
ENCODERS = ("encoder", "encoder-frozen", "encoder-label-free", "encoder-oracle")


def small(**changes: Any) -> Settings:
    """Settings of a run of a second; `optimiser__epochs=5` changes one. Of SMALL those that the method reads."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    method = str(changed.get("method.name", SMALL["method.name"]))
    return load_settings(assignments={key: value for key, value in SMALL.items() if is_read_by(method, key)} | changed)


def draw(file: Path, seed: int, shape: str, photo: bool) -> None:
    """A disc or a box, plain on noise or as an outline on white."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise) if photo else Image.new("RGB", (32, 32), "white")
    low, high = sorted(int(value) for value in rng.integers([2, 18], [12, 30]))
    look = {"fill": tuple(rng.integers(120, 256, 3).tolist())} if photo else {"outline": "black"}
    getattr(ImageDraw.Draw(image), shape)((low, low, high, high), **look)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def draw_domain(folder: Path, number: int, photo: bool, seed: int = 0) -> Path:
    """Class folders `disc` and `box`, `number` images in all."""
    for i in range(number):
        shape, name = ("ellipse", "disc") if i % 2 else ("rectangle", "box")
        draw(folder / name / f"{i:02}.png", 1000 * seed + i, shape, photo)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo/ with 10 images and sketch/ with 7."""
    folder = tmp_path_factory.mktemp("world")
    draw_domain(folder / "photo", 10, photo=True)
    draw_domain(folder / "sketch", 7, photo=False, seed=1)
    return folder


def sources(world: Path) -> tuple[str, str]:
    return str(world / "photo"), str(world / "sketch")


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nothing disturbed."""
    return train(sources(world), tmp_path_factory.mktemp("whole") / "run", small())


def figures(run: Path, without: Sequence[str] = ("speed",)) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what may differ."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in without} for line in lines]


def fingerprints(run: Path, names: Sequence[str] = ENCODERS) -> dict[str, str]:
    return {name: Encoder.load(run / name).fingerprint() for name in names}


def same_run(one: Path, other: Path) -> None:
    """Figures, encoders and the state that a next epoch would start from are equal to the last bit."""
    assert figures(one) == figures(other)
    assert fingerprints(one) == fingerprints(other)
    ours, theirs = (load_checkpoint(run / "checkpoints" / "last.pt") for run in (one, other))
    assert (ours.epoch, ours.best) == (theirs.epoch, theirs.best)
    assert all(torch.equal(a, b) for a, b in zip(ours.banks, theirs.banks, strict=True))
    assert all(torch.equal(value, theirs.encoder[name]) for name, value in ours.encoder.items())


def hidden(folder: Path) -> list[str]:
    """Half-written things that were left behind."""
    return [path.name for path in folder.rglob(".*")]


# A whole run


def test_what_a_run_leaves(world: Path, whole: TrainResult) -> None:
    run = whole.folder
    assert {path.name for path in run.iterdir()} >= {
        *ENCODERS,
        "config.toml",
        "metrics.jsonl",
        "images.csv",
        "train.log",
        "checkpoints",
    }
    assert not hidden(run)
    assert (whole.encoder, whole.epochs, whole.skipped) == (run / "encoder", 3, ())
    assert whole.chosen.keys() == {"label-free", "oracle"}
    stored = load_settings(file=run / "config.toml")
    assert stored.data.domains == (f"photo={world / 'photo'}", f"sketch={world / 'sketch'}")
    assert stored.model_copy(update={"data": small().data}) == small()


def test_figures_of_every_epoch(whole: TrainResult) -> None:
    lines = figures(whole.folder, without=())
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["weights"]["cluster"] for line in lines] == [0.0, 0.25, 0.5]
    assert [line["weights"]["entropy"] for line in lines] == [0.0, 1.0, 1.0]
    for line in lines:
        assert line.keys() == {"epoch", "terms", "weights", "label_free", "collapsed", "speed", "oracle"}
        assert line["terms"].keys() == {"total", "instance", "cluster", "entropy", "distance"}
        assert all(np.isfinite(value) for section in line.values() if isinstance(section, dict) for value in section.values())
    assert lines[-1]["terms"]["entropy"] > 0
    terms, weights = lines[-1]["terms"], lines[-1]["weights"]
    assert terms["total"] == pytest.approx(sum(weights[name] * terms[name] for name in weights), rel=1e-5)


def test_a_loss_that_rises_with_its_weights_is_explained_once(whole: TrainResult) -> None:
    """Cluster contrast rises from epoch 1 on, entropy and distance start in epoch 2."""
    log = (whole.folder / "train.log").read_text()
    assert log.count("the weights of cluster and entropy and distance are rising, and the loss with it") == 1
    assert log.count("rising") == 1


def test_weights_that_begin_to_rise_are_named_once() -> None:
    assert module.rising_lines((), ()) == module.rising_lines(("cluster",), ("cluster",)) == []
    (line,) = module.rising_lines(("cluster", "entropy"), ("cluster",))
    assert line.startswith("the weight of entropy is rising, and the loss with it")


def test_the_kept_encoders_are_those_of_their_epochs(whole: TrainResult) -> None:
    lines = figures(whole.folder)
    for kind, score in (
        ("label-free", lambda line: line["label_free"]["score"]),
        ("oracle", lambda line: line["oracle"]["mAP@All"]),
    ):
        best = max(range(3), key=lambda epoch: (score(lines[epoch]), -epoch))
        assert whole.chosen[kind] == best + 1
        assert f"epoch {best + 1} of 3" in (whole.folder / f"encoder-{kind}" / "README.md").read_text()
        if best == 2:
            assert fingerprints(whole.folder)[f"encoder-{kind}"] == fingerprints(whole.folder)["encoder"]


@pytest.fixture
def collapse(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """collapse(epochs): at the end of these all images of a domain have the same embedding, and all scores are the best."""

    def install(epochs: set[int]) -> None:
        embed_all, label_free = loop.embed_all, loop.label_free_scores

        def embed(trainer: loop.Trainer, progress: Any, same: bool = False) -> list[Embeddings]:
            found = embed_all(trainer, progress, same)
            is_hit = same and trainer.epoch + 1 in epochs
            return [replace(part, rows=torch.ones_like(part.rows) / 4) for part in found] if is_hit else found

        def scores(embeddings: Sequence[torch.Tensor], *rest: Any) -> LabelFreeScores:
            found = label_free(embeddings, *rest)
            return replace(found, score=9.0) if bool((embeddings[0] == embeddings[0][0]).all()) else found

        def oracle(report: loop.EpochReport, domains: Any) -> dict[str, float]:
            return {"mAP@All": 1.0 if report.collapsed else 0.1 * report.epoch, "P@50": 0.5}

        monkeypatch.setattr(loop, "embed_all", embed)
        monkeypatch.setattr(loop, "label_free_scores", scores)
        monkeypatch.setattr(module, "oracle_scores", oracle)

    return install


def test_an_epoch_that_collapsed_is_never_chosen_and_said(
    world: Path, tmp_path: Path, collapse: Callable[[set[int]], None]
) -> None:
    collapse({2, 3})
    said: list[str] = []
    result = train(sources(world), tmp_path / "run", small(), log=said.append)
    assert result.chosen == {"label-free": 1, "oracle": 1}
    lines = figures(result.folder)
    assert [line["collapsed"] for line in lines] == [[], ["photo", "sketch"], ["photo", "sketch"]]
    assert [line["label_free"]["score"] for line in lines[1:]] == [9.0, 9.0]
    sentence = "epoch 2: all images of domain 'photo' and of domain 'sketch' have almost the same embedding (collapsed)"
    for text in (" ".join(said), (result.folder / "train.log").read_text()):
        assert text.count(sentence) == 1
    assert "every epoch collapsed" not in " ".join(said)


def test_a_run_of_which_every_epoch_collapsed_has_no_chosen_encoder(
    world: Path, tmp_path: Path, collapse: Callable[[set[int]], None]
) -> None:
    collapse({1, 2, 3})
    said: list[str] = []
    result = command.train(sources(world), tmp_path / "run", small(), log=said.append, report=True)
    assert result.chosen == {}
    assert said[-1].startswith("every epoch collapsed, so there is no label-free encoder")
    assert not [path for path in result.folder.glob("encoder-*") if path.name != "encoder-frozen"]
    assert result.report is not None


def test_the_encoder_is_the_slow_one_and_has_learned(whole: TrainResult) -> None:
    encoder, state = Encoder.load(whole.encoder), load_checkpoint(whole.folder / "checkpoints" / "last.pt")
    assert all(torch.equal(value, state.momentum_encoder[name]) for name, value in encoder.state_dict().items())
    torch.manual_seed(0)
    start = build_encoder("tiny_network:tiny", "none", 32, 16)
    assert not torch.equal(start.head[0].weight, encoder.head[0].weight)
    frozen = Encoder.load(whole.folder / "encoder-frozen")
    assert frozen.head is None
    assert all(torch.equal(value, frozen.backbone.state_dict()[name]) for name, value in start.backbone.state_dict().items())


def test_images_and_their_ids(world: Path, whole: TrainResult) -> None:
    with (whole.folder / "images.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["domain"] for row in rows] == ["photo"] * 10 + ["sketch"] * 7
    assert rows[0] == {"domain": "photo", "path": str(world / "photo" / "box" / "00.png"), "class": "box", "skipped": ""}
    state = load_checkpoint(whole.folder / "checkpoints" / "last.pt")
    assert [len(bank) for bank in state.banks] == [10, 7]


# The same again


@pytest.mark.parametrize("change", [{}, {"data__workers": 1}], ids=["same settings", "one worker"])
def test_the_same_seed_gives_the_same_run(world: Path, whole: TrainResult, tmp_path: Path, change: dict[str, Any]) -> None:
    train(sources(world), tmp_path / "run", small(**change))
    same_run(tmp_path / "run", whole.folder)


def test_another_seed_gives_another_run(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    train(sources(world), tmp_path / "run", small(run__seed=1, optimiser__epochs=1))
    assert figures(tmp_path / "run")[0]["terms"] != figures(whole.folder)[0]["terms"]


def manifest(file: Path, images: Sequence[Path], classes: Sequence[str] | None) -> str:
    rows = [f"{path}" if classes is None else f"{path},{name}" for path, name in zip(images, classes or images, strict=True)]
    file.write_text("\n".join(["path" if classes is None else "path,class", *rows]))
    return f"{file.stem.split('-')[0]}={file}"


@pytest.mark.parametrize("kind", ["classes none", "no class column", "wrong classes", "no oracle"])
def test_training_never_reads_labels(world: Path, whole: TrainResult, tmp_path: Path, kind: str) -> None:
    """Bit by bit the same, whatever is said about classes."""
    given, settings = sources(world), small(run__oracle=kind != "no oracle")
    if kind == "classes none":
        settings = small(data__classes="none")
    elif kind != "no oracle":
        images = {name: sorted((world / name).rglob("*.png")) for name in ("photo", "sketch")}
        labels = {name: ["abc"[i % 3] for i in range(len(paths))] for name, paths in images.items()}
        column = None if kind == "no class column" else labels
        given = tuple(
            manifest(tmp_path / f"{name}-{kind[:2]}.csv", paths, column and column[name]) for name, paths in images.items()
        )
    result = train(given, tmp_path / "run", settings)
    kept = ("encoder", "encoder-frozen", "encoder-label-free")
    assert figures(result.folder, ("speed", "oracle")) == figures(whole.folder, ("speed", "oracle"))
    assert fingerprints(result.folder, kept) == fingerprints(whole.folder, kept)
    assert ("oracle" in result.chosen) == (kind == "wrong classes")
    assert (result.folder / "encoder-oracle").exists() == (kind == "wrong classes")


# Interrupted and resumed


class Stop(Exception):
    """The machine gave up."""


def stopping_bars(at: int, error: BaseException) -> Callable[[str, int], Any]:
    """Bars that raise when the `at`th piece of work is done, counted over all bars."""
    count = 0

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(number: int) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise error

        yield advance

    return progress


@pytest.mark.parametrize("at", [5, 8, 10, 15], ids=["first step", "embedding", "second epoch", "last embedding"])
def test_a_run_that_broke_off_is_resumed_exactly(world: Path, whole: TrainResult, tmp_path: Path, at: int) -> None:
    """Two pieces of embedding and two of what the backbone finds first, then per epoch two steps and two pieces."""
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(at, Stop()))
    assert len(figures(tmp_path / "run")) == (at - 5) // 4
    result = train(out=tmp_path / "run", resume=True)
    same_run(result.folder, whole.folder)
    assert not hidden(result.folder)


def test_a_run_with_adamw_is_resumed_exactly(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    settings = small(optimiser__name="adamw", optimiser__learning_rate=1e-3)
    train(sources(world), tmp_path / "one", settings)
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "two", settings, progress=stopping_bars(10, Stop()))
    train(out=tmp_path / "two", resume=True)
    same_run(tmp_path / "two", tmp_path / "one")
    assert fingerprints(tmp_path / "one")["encoder"] != fingerprints(whole.folder)["encoder"]


def test_a_run_says_what_became_of_every_tensor_of_its_weights(world: Path, tmp_path: Path) -> None:
    build_encoder("tiny_network:tiny", "none", 32, 16).save(tmp_path / "start")
    settings = small(encoder__weights=str(tmp_path / "start"), optimiser__epochs=1)
    train(sources(world), tmp_path / "run", settings)
    lines = (tmp_path / "run" / "weights.csv").read_text(encoding="utf-8").splitlines()
    names = Encoder.load(tmp_path / "run" / "encoder").state_dict()
    assert sorted(line.split(",")[0] for line in lines[1:]) == sorted(names)
    assert len(lines) == 1 + len(names)


RIVALS = {"prototype": {}, "coda": {"method__over_clusters": (5, 8)}, "protoot": {"method__ot_prototypes": "published"}}


@pytest.mark.parametrize("method", RIVALS)
def test_a_rival_is_resumed_exactly(world: Path, tmp_path: Path, method: str) -> None:
    """With what its objective carries: classifiers, or prototypes that drift from epoch to epoch."""
    settings = small(method__name=method, **RIVALS[method])
    train(sources(world), tmp_path / "one", settings)
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "two", settings, progress=stopping_bars(10, Stop()))
    train(out=tmp_path / "two", resume=True)
    same_run(tmp_path / "two", tmp_path / "one")
    ours, theirs = (load_checkpoint(tmp_path / run / "checkpoints" / "last.pt").objective for run in ("one", "two"))
    assert len(ours) == {"prototype": 0, "coda": 4, "protoot": 2}[method]
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_that_broke_off_twice(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(10, Stop()))
    with pytest.raises(Stop):
        train(out=tmp_path / "run", resume=True, progress=stopping_bars(8, Stop()))
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)


def test_a_run_that_broke_off_between_two_epochs(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    def log(sentence: str) -> None:
        if sentence.startswith("epoch 2/3"):
            raise Stop

    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), log=log)
    assert len(figures(tmp_path / "run")) == 2
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_broke_off_around_a_checkpoint(
    world: Path, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Neither is an epoch lost from the figures nor is it there twice."""
    save = module.save_checkpoint

    def breaking(file: Path, state: Any) -> None:
        if when == "after" or state.epoch < 2:
            save(file, state)
        if state.epoch == 2:
            raise Stop

    monkeypatch.setattr(module, "save_checkpoint", breaking)
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small())
    monkeypatch.undo()
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)


def test_a_run_that_broke_off_before_its_first_checkpoint_starts_anew(
    world: Path, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(*_: object) -> None:
        raise Stop

    monkeypatch.setattr(module, "save_checkpoint", breaking)
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small())
    monkeypatch.undo()
    assert (tmp_path / "run" / "config.toml").is_file()
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)


def test_nothing_is_left_of_a_run_that_broke_off_before_it_began(world: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(3, Stop()))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRun, match=r"stopped after epoch 1 of 3.*--resume") as caught:
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(10, KeyboardInterrupt()))
    assert caught.value.exit_code == 130
    assert Encoder.load(tmp_path / "run" / "encoder").config.dim == 16


def test_ctrl_c_while_saving_counts_the_epochs_that_are_safe(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = module.save_checkpoint

    def interrupted(file: Path, state: Any) -> None:
        if state.epoch == 2:
            raise KeyboardInterrupt
        save(file, state)

    monkeypatch.setattr(module, "save_checkpoint", interrupted)
    with pytest.raises(InterruptedRun, match="stopped after epoch 1 of 3"):
        train(sources(world), tmp_path / "run", small())


def test_resuming_a_finished_run_writes_nothing(
    whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    (run / "report.html").write_text("the report")
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    result = command.train(out=run, resume=True)
    assert result == replace(
        whole, folder=run, encoder=run / "encoder", report=run / "report.html", seconds=result.seconds, was_finished=True
    )
    assert exit_code(monkeypatch, "--resume", "--out", run) == 0
    output, errors = capsys.readouterr()
    assert output.startswith(f"{run} is already finished: 3 of 3 epochs.")
    assert ("Wrote" in output, errors) == (False, "")
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


def test_resuming_a_finished_run_without_its_report_writes_that(whole: TrainResult, tmp_path: Path) -> None:
    result = command.train(out=copy_of(whole.folder, tmp_path / "run"), resume=True)
    assert result.report == tmp_path / "run" / "report.html"
    assert result.report.is_file()
    assert result.was_finished


def test_the_terms_of_an_epoch_line_add_up(world: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(sources(world), tmp_path / "run", small(method__cluster_full=1.0), log=said.append)
    lines = [re.search(r"loss ([\d.]+) = (instance .*?)  label-free", line) for line in said if line.startswith("epoch ")]
    assert len(lines) == 3
    factors = []
    for line in lines:
        assert line is not None
        terms = [re.fullmatch(r"(?:([\d.]+) x )?[a-z_ ]+ (-?[\d.]+)", term) for term in line[2].split(" + ")]
        pairs = [(float(term[1] or 1), float(term[2])) for term in terms if term is not None]
        assert len(pairs) == len(terms)
        assert sum(factor * value for factor, value in pairs) == pytest.approx(float(line[1]), abs=0.01)
        factors += [factor for factor, _ in pairs]
    assert min(factors) < 1


def test_weights_that_are_not_there_are_told_before_anything_else(world: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(UcdirError, match="pretrained weights not found"):
        train(sources(world), tmp_path / "run", small(encoder__weights="nope.pth"), log=said.append)
    assert said == []


# Killed, as a process


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from ucdir.commands.train import train
from ucdir.settings import load_settings

photo, sketch, out, config, when = sys.argv[1:]

@contextmanager
def bars(description, total):
    def advance(count):
        if when == "inside" and description.startswith("epoch 2/"):
            os.kill(os.getpid(), signal.SIGKILL)
    yield advance

def say(sentence):
    if when == "between" and sentence.startswith("epoch 1/"):
        os.kill(os.getpid(), signal.SIGKILL)

train((photo, sketch), Path(out), load_settings(file=Path(config)), progress=bars, log=say)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["inside", "between"])
def test_a_killed_process_is_resumed_exactly(world: Path, whole: TrainResult, tmp_path: Path, when: str) -> None:
    """SIGKILL inside the second epoch, and right after the first. Processes agree to the last bit, too."""
    config, run = tmp_path / "settings.toml", tmp_path / "run"
    config.write_text(small().to_toml())
    arguments = [sys.executable, "-c", KILLED, *sources(world), run, config, when]
    killed = subprocess.run(arguments, check=False, env=one_thread())
    assert killed.returncode == -signal.SIGKILL
    assert len(figures(run)) == 1
    train(out=run, resume=True)
    same_run(run, whole.folder)


def one_thread() -> dict[str, str]:
    """As many threads as this process computes with: sums must be added in the same order."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def listen_to_ctrl_c() -> None:
    """A process started in the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal(world: Path, tmp_path: Path) -> None:
    """SIGINT: exit code 130, one sentence, a usable run; --resume completes it."""
    run, config = tmp_path / "run", tmp_path / "settings.toml"
    config.write_text(small(optimiser__epochs=12).to_toml())
    command = [sys.executable, "-m", "ucdir", "train", *sources(world), "--out", run, "--config", config, "--no-report"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=listen_to_ctrl_c) as process:
        log = run / "train.log"
        while process.poll() is None and not (log.exists() and "epoch 1/12" in log.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert output == ""
    assert "Traceback" not in errors
    stopped = re.search(r"stopped after epoch (\d+) of 12", errors.splitlines()[-1])
    assert stopped is not None
    assert 1 <= int(stopped[1]) <= len(figures(run)) < 12
    assert Encoder.load(run / "encoder").config.dim == 16
    resumed = subprocess.run(
        [sys.executable, "-m", "ucdir", "train", "--out", run, "--resume", "--json", "--no-report"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(resumed.stdout)["epochs"] == 12
    assert [line["epoch"] for line in figures(run)] == list(range(1, 13))


# Other shapes of data


def test_three_domains_of_unequal_size(world: Path, tmp_path: Path) -> None:
    """The smallest is smaller than a batch; two cluster counts."""
    third = draw_domain(tmp_path / "clipart", 3, photo=False, seed=2)
    result = train((*sources(world), str(third)), tmp_path / "run", small(method__num_clusters=(2, 3), optimiser__epochs=2))
    state = load_checkpoint(result.folder / "checkpoints" / "last.pt")
    assert [len(bank) for bank in state.banks] == [10, 7, 3]
    assert [[len(found.prototypes) for found in domain] for domain in state.clusterings] == [[2, 3]] * 3
    assert all(np.isfinite(list(line["terms"].values())).all() for line in figures(result.folder))


def test_domains_given_by_name_and_in_another_order(world: Path, tmp_path: Path) -> None:
    given = (f"b={world / 'sketch'}", f"a={world / 'photo'}")
    result = train(given, tmp_path / "run", small(optimiser__epochs=1))
    assert load_settings(file=result.folder / "config.toml").data.domains == (
        f"b={world / 'sketch'}",
        f"a={world / 'photo'}",
    )


def test_as_many_clusters_as_images(world: Path, tmp_path: Path) -> None:
    assert train(sources(world), tmp_path / "run", small(method__num_clusters=7, optimiser__epochs=2)).epochs == 2


def test_a_folder_whose_name_is_no_text_is_refused(world: Path, tmp_path: Path) -> None:
    """File systems allow names that are not UTF-8, TOML does not."""
    strange = tmp_path / os.fsdecode(b"sk\xffetch")
    try:
        shutil.copytree(world / "sketch", strange)
    except OSError:
        pytest.skip("this file system allows no such name")
    with pytest.raises(UcdirError, match="is not UTF-8"):
        train((sources(world)[0], f"sketch={strange}"), tmp_path / "run", small(optimiser__epochs=2))
    assert not (tmp_path / "run").exists()


# Unreadable images


@pytest.fixture
def damaged(world: Path, tmp_path: Path) -> Path:
    """The same world, where one of the ten photographs is truncated."""
    shutil.copytree(world, tmp_path / "damaged")
    file = tmp_path / "damaged" / "photo" / "disc" / "03.png"
    file.write_bytes(file.read_bytes()[:200])
    return tmp_path / "damaged"


def test_unreadable_images_are_skipped_and_listed(damaged: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(sources(damaged), tmp_path / "run", small(data__max_unreadable=0.1), log=said.append)
    (error,) = result.skipped
    assert isinstance(error, ImageError)
    assert error.path == str(damaged / "photo" / "disc" / "03.png")
    with (tmp_path / "run" / "images.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [(row["path"], row["skipped"]) for row in rows if row["skipped"]] == [(error.path, error.reason)]
    assert len(rows) == 17
    assert any("03.png" in line for line in said)
    assert "03.png" in (tmp_path / "run" / "train.log").read_text()
    assert len(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").banks[0]) == 9


def test_a_run_with_skipped_images_is_resumed_exactly(damaged: Path, tmp_path: Path) -> None:
    settings = small(data__max_unreadable=0.1, optimiser__epochs=2)
    train(sources(damaged), tmp_path / "one", settings)
    with pytest.raises(Stop):
        train(sources(damaged), tmp_path / "two", settings, progress=stopping_bars(9, Stop()))
    result = train(out=tmp_path / "two", resume=True)
    same_run(tmp_path / "two", tmp_path / "one")
    assert [error.path for error in result.skipped] == [str(damaged / "photo" / "disc" / "03.png")]


def test_too_many_unreadable_images_end_the_run(damaged: Path, tmp_path: Path) -> None:
    message = r"1 of the 10 images of domain 'photo' cannot be read \(10\.0%, allowed 1\.0%\): .*03\.png"
    with pytest.raises(UcdirError, match=message) as caught:
        train(sources(damaged), tmp_path / "run", small())
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run").exists()


def test_only_unreadable_images(world: Path, tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(UcdirError, match=r"9 of the 9 images of domain 'bad' cannot be read"):
        train((sources(world)[0], str(tmp_path / "bad")), tmp_path / "run", small())
    assert not (tmp_path / "run").exists()


def test_an_image_that_vanishes_during_the_run(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")

    def log(sentence: str) -> None:
        if sentence.startswith("epoch 1/"):
            (tmp_path / "world" / "sketch" / "disc" / "01.png").unlink()

    with pytest.raises(ImageError, match=r"01\.png': file not found"):
        train(sources(tmp_path / "world"), tmp_path / "run", small(), log=log)
    assert len(figures(tmp_path / "run")) == 1


def test_an_epoch_is_scored_as_evaluate_scores_it(world: Path, tmp_path: Path) -> None:
    """To the digit, in bfloat16 and with the convolutions that a training keeps in float32."""
    settings = small(encoder__backbone="torchvision/mobilenet_v2", run__precision="bfloat16", optimiser__epochs=1)
    run = train(sources(world), tmp_path / "run", settings).folder
    report = evaluate(run, ks=(50,), device="cpu", precision="bfloat16", resamples=0)
    scores = [report.scores("trained", *direction)["mAP@All"].value for direction in report.directions]
    assert figures(run)[-1]["oracle"]["mAP@All"] == pytest.approx(sum(scores) / len(scores), rel=1e-12)


# Run folders that exist


def copy_of(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


def test_an_existing_run_is_refused(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    with pytest.raises(UsageError, match=r"already exists\. Continue it \(--resume\), replace it \(--overwrite\)"):
        train(sources(world), run, small())
    same_run(run, whole.folder)


def test_an_empty_folder_is_taken(world: Path, tmp_path: Path) -> None:
    """Also one that holds no more than a run that was killed in its first moment."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.k3x9.tmp").write_text("[enc")
    assert train(sources(world), tmp_path / "run", small(optimiser__epochs=1)).epochs == 1


def test_overwrite_replaces_a_run(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    (run / "mine.txt").write_text("old")
    train(sources(world), run, small(optimiser__epochs=1, run__oracle=False), overwrite=True)
    assert len(figures(run)) == 1
    assert not (run / "mine.txt").exists()
    assert not (run / "encoder-oracle").exists()


def test_overwrite_needs_no_run_to_replace(world: Path, tmp_path: Path) -> None:
    assert train(sources(world), tmp_path / "run", small(optimiser__epochs=1), overwrite=True).epochs == 1


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_overwrite_deletes_nothing_that_is_no_run(world: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    if kind == "folder":
        out.mkdir()
    thesis = out / "thesis.txt" if kind == "folder" else out
    thesis.write_text("years of work")
    with pytest.raises(UsageError, match=r"is not a run folder|is a file"):
        train(sources(world), out, small(), overwrite=True)
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize("change", [{"method__num_clusters": 50}, {"encoder__weights": "nowhere.pth"}])
def test_a_refused_overwrite_keeps_the_old_run(world: Path, whole: TrainResult, tmp_path: Path, change: dict[str, Any]) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    with pytest.raises(UcdirError):
        train(sources(world), run, small(**change), overwrite=True)
    same_run(run, whole.folder)


# Pixel cache


def test_the_cache_changes_nothing(world: Path, whole: TrainResult, user_cache: Path, tmp_path: Path) -> None:
    """The whole run had the user's; another folder, first empty, then full, and none give the very same run."""
    assert any((user_cache / "ucdir" / "pixels").rglob("*"))
    for number, cache in enumerate((tmp_path / "cache", tmp_path / "cache", "none")):
        train(sources(world), tmp_path / f"run{number}", small(data__cache_dir=str(cache)))
        same_run(tmp_path / f"run{number}", whole.folder)


def test_a_run_says_which_cache_it_has(world: Path, tmp_path: Path) -> None:
    for cache, sentence in (("auto", r"pixel cache: '.*', at most [\d.]+ GB"), ("none", "")):
        said: list[str] = []
        train(sources(world), tmp_path / cache, small(optimiser__epochs=1, data__cache_dir=cache), log=said.append)
        found = [line for line in said if line.startswith(("pixel cache", "no pixel cache"))]
        assert len(found) == (1 if sentence else 0)
        assert all(re.match(sentence, line) for line in found)


def test_a_run_is_resumed_with_another_cache(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(10, Stop()))
    train(out=tmp_path / "run", settings=small(data__cache_dir=str(tmp_path / "cache"), data__cache_gb=3), resume=True)
    same_run(tmp_path / "run", whole.folder)
    assert any((tmp_path / "cache").rglob("*"))


def test_a_cache_that_fails_ends_no_run(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    said: list[str] = []
    train(sources(world), tmp_path / "run", small(data__cache_dir=str(file)), log=said.append)
    assert f"no pixel cache: cannot use '{file}' (File exists); decoding images again each time." in said
    same_run(tmp_path / "run", whole.folder)


def test_a_run_with_warm_starts_is_resumed_exactly(world: Path, tmp_path: Path) -> None:
    """The clusters of the last epoch are in the checkpoint."""
    settings = small(method__kmeans_warm_start=True)
    train(sources(world), tmp_path / "one", settings)
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "two", settings, progress=stopping_bars(10, Stop()))
    train(out=tmp_path / "two", resume=True)
    same_run(tmp_path / "two", tmp_path / "one")


def test_a_warm_start_is_given_the_clusters_of_the_last_epoch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same domain and the same count; nothing when there are none yet."""
    found: dict[tuple[int, int], list[tuple[torch.Tensor | None, torch.Tensor]]] = {}

    def watched(rows: torch.Tensor, count: int, *rest: Any) -> Clusters:
        clusters = kmeans(rows, count, *rest)
        found.setdefault((len(rows), count), []).append((rest[-1], clusters.assignment))
        return clusters

    monkeypatch.setattr("ucdir.learn.trainer.kmeans", watched)
    train(sources(world), tmp_path / "run", small(method__kmeans_warm_start=True, method__num_clusters=(2, 3)))
    assert found.keys() == {(10, 2), (10, 3), (7, 2), (7, 3)}
    for starts in found.values():
        assert len(starts) == 4
        assert starts[0][0] is None
        for (_, before), (start, _) in pairwise(starts):
            assert start is not None
            assert torch.equal(start, before)


def test_a_run_from_before_warm_starts_is_resumed(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(10, Stop()))
    config = tmp_path / "run" / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("kmeans_warm_start = false\n", ""), encoding="utf-8")
    assert config.read_text(encoding="utf-8") != text
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)


def test_a_run_from_before_there_was_a_reference_is_resumed(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    """It is made then, with the backbone as it was before the first epoch; scores of another kind choose no epoch."""
    with pytest.raises(Stop):
        train(sources(world), tmp_path / "run", small(), progress=stopping_bars(10, Stop()))
    file = tmp_path / "run" / "checkpoints" / "last.pt"
    content = torch.load(file, weights_only=True)
    del content["reference"], content["objective"]
    content["best"]["label-free"] = (1, 1e9)
    torch.save(content, file)
    result = train(out=tmp_path / "run", resume=True)
    assert figures(result.folder) == figures(whole.folder)
    assert result.chosen["label-free"] > 1


def test_views_may_be_rendered_on_the_device(world: Path, tmp_path: Path) -> None:
    """The same run again is the same run; it differs from the one on the CPU by roundings."""
    for name in ("one", "two"):
        train(sources(world), tmp_path / name, small(data__views="device"))
    same_run(tmp_path / "one", tmp_path / "two")


# Resume


def test_resume_with_other_settings_is_refused(whole: TrainResult, tmp_path: Path) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    with pytest.raises(UsageError, match=r"--resume with another optimiser.epochs \(9\) than the run started with \(3\)"):
        train(out=run, settings=small(optimiser__epochs=9), resume=True)


def test_resume_with_the_same_settings_and_domains_is_fine(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    assert train(sources(world), run, small(), resume=True).epochs == 3


def test_resume_with_other_domains_is_refused(world: Path, whole: TrainResult) -> None:
    with pytest.raises(UsageError, match=r"--resume with other domains than those the run started with \(photo="):
        train(sources(world)[::-1], whole.folder, resume=True)


def test_resume_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is nothing to resume: '.*config.toml' does not exist"):
        train(out=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resume_and_overwrite(whole: TrainResult) -> None:
    with pytest.raises(UsageError, match="--resume and --overwrite exclude each other"):
        train(out=whole.folder, resume=True, overwrite=True)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_resume_from_a_corrupt_checkpoint(whole: TrainResult, tmp_path: Path, share: float) -> None:
    run = copy_of(whole.folder, tmp_path / "run")
    file = run / "checkpoints" / "last.pt"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UcdirError, match=r"checkpoint '.*last\.pt' is damaged .*--overwrite"):
        train(out=run, resume=True)
    assert fingerprints(run) == fingerprints(whole.folder)


@pytest.mark.parametrize("text", ["", "domain,path\n", "\x00"])
def test_resume_with_a_damaged_list_of_images(world: Path, tmp_path: Path, text: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stop):
        train(sources(world), run, small(), progress=stopping_bars(10, Stop()))
    (run / "images.csv").write_text(text)
    with pytest.raises(UcdirError, match=r"images.csv"):
        train(out=run, resume=True)


def test_resume_when_images_came_and_when_one_went(world: Path, whole: TrainResult, tmp_path: Path) -> None:
    """New images are left out; the run needs all that it began with."""
    shutil.copytree(world, tmp_path / "world")
    with pytest.raises(Stop):
        train(sources(tmp_path / "world"), tmp_path / "run", small(), progress=stopping_bars(10, Stop()))
    draw(tmp_path / "world" / "photo" / "box" / "00a.png", 77, "ellipse", photo=True)
    run = copy_of(tmp_path / "run", tmp_path / "again")
    train(out=tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole.folder)
    (tmp_path / "world" / "photo" / "box" / "00.png").unlink()
    with pytest.raises(UcdirError, match=r"1 images? of domain 'photo' .* gone, for example '.*00\.png'"):
        train(out=run, resume=True)


# Refused before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method__num_clusters": 8}, r"num_clusters=8 is more than the 7 images of domain 'sketch'\. Use at most 7"),
        ({"optimiser__batch_size": 11}, r"--batch-size 11 is more than the 10 images of the largest domain 'photo'"),
        ({"method__batch_norm_splits": 5}, r"batch_norm_splits"),
        ({"encoder__backbone": "timm/test_resnett"}, r"Did you mean .*test_resnet"),
        ({"encoder__weights": "nowhere.pth"}, r"pretrained weights not found: 'nowhere.pth'"),
        ({"run__device": "cuda:77"}, r"device 'cuda:77' is not available"),
    ],
    ids=["clusters", "batch", "splits", "backbone", "weights", "device"],
)
def test_settings_that_cannot_work(world: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UcdirError, match=message):
        train(sources(world), tmp_path / "run", small(**change))
    assert list(tmp_path.iterdir()) == []


def test_domains_that_cannot_work(world: Path, tmp_path: Path) -> None:
    photo, sketch = sources(world)
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "single" / "0.png", 0, "ellipse", photo=True)
    for given, message in (
        ((), "no domains given"),
        ((photo,), "at least two domains"),
        ((photo, photo), "photo"),
        ((photo, str(tmp_path / "nowhere")), "nowhere"),
        ((photo, str(tmp_path / "empty")), r"domain 'empty' has no images"),
        ((photo, str(tmp_path / "single")), r"num_clusters=3 is more than the 1 images? of domain 'single'"),
        ((f"same={photo}", f"same={sketch}"), "same"),
    ):
        with pytest.raises(UcdirError, match=message):
            train(given, tmp_path / "run", small())
        assert not (tmp_path / "run").exists()


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 350 kB: room for the first checkpoint, not for the second."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=350k", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(world: Path, whole: TrainResult, disk: Path) -> None:
    with pytest.raises(UcdirError, match=r"[Dd]isk"):
        train(sources(world), disk / "run", small())
    assert not hidden(disk)
    assert (disk / "run" / "checkpoints" / "last.pt").is_file()
    subprocess.run(["mount", "-o", "remount,size=60m", disk], check=True)
    train(out=disk / "run", resume=True)
    same_run(disk / "run", whole.folder)


# Through the command line


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ucdir", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_one_sentence_and_an_exit_code(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "run")
    photo, sketch = sources(world)
    for arguments, code, word in (
        ((photo, *out), 2, "two"),
        ((photo, tmp_path / "nowhere", *out), None, "nowhere"),
        ((photo, sketch, *out, "--set", "optimiser.epoch=3"), 2, "epochs"),
        ((photo, sketch, *out, "--preset", "officehome"), 2, "office-home"),
        ((photo, sketch, *out, "--batch-size", 4), 2, "no effect with method align"),
        ((photo, sketch, *out, "--weights", "none", "--init", "x"), 2, "exclude each other"),
        ((photo, sketch, *out, "--weights", "nowhere.pth"), 1, "nowhere.pth"),
        ((*out, "--resume"), 2, "resume"),
    ):
        found = exit_code(monkeypatch, *arguments)
        assert found in ((1, 2) if code is None else (code,))
        output, errors = capsys.readouterr()
        assert output == ""
        last = errors.strip().splitlines()[-1]
        assert last.startswith("ucdir: ")
        assert word in last
        assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_a_whole_run_through_the_command_line(
    world: Path, whole: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags win over the file; results on stdout, everything else on stderr."""
    config = tmp_path / "settings.toml"
    config.write_text(small(optimiser__epochs=9, method__num_clusters=5).to_toml())
    flags = ("--config", config, "--epochs", 3, "--set", "method.num_clusters=[3]", "--json")
    code = exit_code(monkeypatch, *sources(world), "--out", tmp_path / "run", *flags)
    assert code == 0
    output, errors = capsys.readouterr()
    document = json.loads(output)
    assert document["encoder"] == str(tmp_path / "run" / "encoder")
    assert (document["epochs"], document["chosen"], document["skipped"]) == (3, dict(whole.chosen), [])
    assert "num_clusters = [3]" in errors
    assert "epoch 3/3" in errors
    shutil.rmtree(tmp_path / "run")
    code = exit_code(monkeypatch, *sources(world), "--out", tmp_path / "run", *flags[:-1], "--no-report")
    output = capsys.readouterr().out
    assert re.search(r": 3 epochs, 0\.\d minutes of training\.\n", output)
    assert f"Next: ucdir evaluate {tmp_path / 'run'}    or    ucdir index" in output
    same_run(tmp_path / "run", whole.folder)


def test_without_classes_the_next_command_is_one_that_works(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(small(optimiser__epochs=1, data__classes="none").to_toml())
    assert exit_code(monkeypatch, *sources(world), "--out", tmp_path / "run", "--config", config, "--no-report") == 0
    assert f"Next: ucdir index {tmp_path / 'run'} DIR --out gallery" in capsys.readouterr().out


def test_help_names_every_preset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert exit_code(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in preset_names())
