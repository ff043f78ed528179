"""Learning the projection head alone, on what the backbone gave once."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from ucdir.commands.train import train as train_and_report
from ucdir.config import Settings, load_settings
from ucdir.drawing.collection import draw_collections
from ucdir.errors import InterruptedRun
from ucdir.learn.checkpoint import load_checkpoint
from ucdir.model.encoder import Encoder
from ucdir.retrieval.embed import embed

train = partial(train_and_report, report=False)

HEAD = {
    "method.name": "ucdir",
    "encoder.backbone": "timm/test_resnet",
    "encoder.weights": "none",
    "encoder.image_size": 32,
    "encoder.dim": 16,
    "method.num_clusters": (3,),
    "method.cluster_start": 0.0,
    "method.cluster_full": 0.5,
    "method.alignment_start": 0.3,
    "method.entropy_temperature": 0.1,
    "method.distance_temperature": 0.1,
    "method.encoder_momentum": 0.9,
    "optimiser.train": "head",
    "optimiser.name": "adamw",
    "optimiser.learning_rate": 0.01,
    "optimiser.epochs": 4,
    "optimiser.batch_size": 8,
    "run.device": "cpu",
    "run.precision": "float32",
}


def head(**changes: object) -> Settings:
    return load_settings(assignments=HEAD | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    drawn = draw_collections(tmp_path_factory.mktemp("drawn") / "d", images_per_class=6, size=40)
    return [str(drawn.photo), str(drawn.drawing)]


@pytest.fixture(scope="module")
def run(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(sources, tmp_path_factory.mktemp("head") / "run", head()).folder


def terms(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["terms"] for line in lines]


def test_the_head_learns_and_the_backbone_stays(run: Path) -> None:
    learned, frozen = Encoder.load(run / "encoder"), Encoder.load(run / "encoder-frozen")
    before = frozen.backbone.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in learned.backbone.state_dict().items())
    found = terms(run)
    images = min(len(rows) for rows in load_checkpoint(run / "checkpoints" / "last.pt").banks)
    assert found[-1]["instance"] < math.log(images) - 0.2  # better than guessing which image it is
    assert found[-1]["cluster"] > 0
    assert found[-1]["distance"] > 0


def test_the_bank_is_what_the_saved_encoder_gives(run: Path, sources: list[str]) -> None:
    """The epoch's embeddings come from the table; those of the image files through the saved encoder are the same."""
    encoder = Encoder.load(run / "encoder")
    rows = embed(encoder, sorted(Path(sources[0]).rglob("*.jpg")), torch.device("cpu"), "float32").rows
    clusters = load_checkpoint(run / "checkpoints" / "last.pt").clusterings[0][0]
    nearest = (rows @ clusters.prototypes.T).argmax(dim=1)
    assert float((nearest == clusters.assignment).double().mean()) > 0.8


def test_what_the_backbone_gave_is_kept_and_taken(
    run: Path, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder with the same images: nothing is run through the backbone again."""
    cache = tmp_path / "cache"
    train(sources, tmp_path / "first", head(data__cache_dir=str(cache)))
    assert terms(tmp_path / "first") == terms(run)
    assert len(list((cache / "features").iterdir())) == 4  # of each domain the evaluation views and the training views
    copies = [shutil.copytree(source, tmp_path / "copy" / Path(source).name) for source in sources]
    monkeypatch.setattr("ucdir.learn.features._views", None)
    monkeypatch.setattr("ucdir.retrieval.features.embed", None)
    train([str(copy) for copy in copies], tmp_path / "second", head(data__cache_dir=str(cache)))
    assert terms(tmp_path / "second") == terms(run)


def test_damaged_features_are_computed_again(run: Path, sources: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train(sources, tmp_path / "first", head(data__cache_dir=str(cache), optimiser__epochs=1))
    for file in (cache / "features").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    train(sources, tmp_path / "second", head(data__cache_dir=str(cache)))
    assert terms(tmp_path / "second") == terms(run)


def test_a_run_is_resumed_exactly(run: Path, sources: list[str], tmp_path: Path) -> None:
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        train(sources, tmp_path / "run", head(), say=say)
    train(out=tmp_path / "run", resume=True)
    assert terms(tmp_path / "run") == terms(run)
    assert Encoder.load(tmp_path / "run" / "encoder").fingerprint() == Encoder.load(run / "encoder").fingerprint()


def test_unreadable_images_are_left_out(sources: list[str], tmp_path: Path) -> None:
    copies = [shutil.copytree(source, tmp_path / Path(source).name) for source in sources]
    next(iter(sorted(copies[0].rglob("*.jpg")))).write_bytes(b"no image")
    result = train([str(copy) for copy in copies], tmp_path / "run", head(optimiser__epochs=1, data__max_unreadable=0.1))
    assert len(result.skipped) == 1


def test_unreadable_images_are_told_again_when_the_features_were_kept(sources: list[str], tmp_path: Path) -> None:
    copies = [shutil.copytree(source, tmp_path / Path(source).name) for source in sources]
    next(iter(sorted(copies[0].rglob("*.jpg")))).write_bytes(b"no image")
    settings = head(optimiser__epochs=1, data__max_unreadable=0.1, data__cache_dir=str(tmp_path / "cache"))
    first, second = (train([str(copy) for copy in copies], tmp_path / out, settings) for out in ("one", "two"))
    assert [str(error) for error in first.skipped] == [str(error) for error in second.skipped]
    assert terms(tmp_path / "one") == terms(tmp_path / "two")
