"""Learning the projection head alone, on what the backbone gave once."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from small_run import GRADIENT

from ucdir.commands.train import train as train_and_report
from ucdir.drawing.collection import draw_collections
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import embed
from ucdir.errors import ImageError, InterruptedRun, UcdirError
from ucdir.images.epoch_plan import StepPlan
from ucdir.images.step_batches import StepBatch
from ucdir.learn.checkpoint import load_checkpoint
from ucdir.learn.inputs import Pictures
from ucdir.learn.run_log import listed_images
from ucdir.model.encoder import Encoder
from ucdir.settings import DataSettings, Settings, load_settings

pytestmark = pytest.mark.slow

train = partial(train_and_report, report=False)

HEAD = GRADIENT | {
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
    rows = embed(encoder, sorted(Path(sources[0]).rglob("*.jpg")), Compute(torch.device("cpu"), "float32")).rows
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
    monkeypatch.setattr("ucdir.learn.head_only._views", None)
    monkeypatch.setattr("ucdir.embedding.backbone_features.embed", None)
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

    def log(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun):
        train(sources, tmp_path / "run", head(), log=log)
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


SPOILERS = {"empty": b"", "corrupt": b"no image", "gone": None}


@pytest.mark.parametrize("content", SPOILERS.values(), ids=SPOILERS)
def test_what_cannot_be_read_is_left_out_with_a_cache_too(sources: list[str], tmp_path: Path, content: bytes | None) -> None:
    """Just as many as are allowed: one image of the domain."""
    copies, first = copied(sources, tmp_path)
    images = len(list(first.parents[1].rglob("*.jpg")))
    first.unlink()
    if content is None:
        first.symlink_to(tmp_path / "nowhere.jpg")
    else:
        first.write_bytes(content)
    settings = head(optimiser__epochs=1, data__max_unreadable=1 / images)
    plain = train(copies, tmp_path / "plain", settings.model_copy(update={"data": with_cache(settings, "none")}))
    cached = train(copies, tmp_path / "cached", settings.model_copy(update={"data": with_cache(settings, tmp_path / "cache")}))
    assert [error.path for error in cached.skipped] == [str(first)]
    assert [str(error) for error in cached.skipped] == [str(error) for error in plain.skipped]
    assert terms(tmp_path / "cached") == terms(tmp_path / "plain")
    assert [image.path for image in listed_images(tmp_path / "cached") if image.skipped] == [str(first)]
    with pytest.raises(UcdirError, match=rf"1 of the {images} images of domain 'photo' cannot .* allowed 1\.0%"):
        train(copies, tmp_path / "strict", head(data__cache_dir=str(tmp_path / "cache")))
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_that_vanishes_before_its_training_views_is_left_out(
    sources: list[str], tmp_path: Path, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is that of folders without the image."""
    copies, first = copied(sources, tmp_path)
    cache = str(tmp_path / "cache") if cached else "none"
    views, settings = Pictures.views, head(optimiser__epochs=1, data__max_unreadable=0.1, data__cache_dir=cache)

    def vanish(pictures: Pictures, plans: Sequence[StepPlan], seed: Sequence[int]) -> Iterator[StepBatch]:
        first.unlink(missing_ok=True)
        return views(pictures, plans, seed)

    with monkeypatch.context() as patched:
        patched.setattr(Pictures, "views", vanish)
        result = train(copies, tmp_path / "run", settings)
    assert [str(error) for error in result.skipped] == [f"cannot use image '{first}': file not found"]
    train(copies, tmp_path / "without", settings)
    assert terms(tmp_path / "run") == terms(tmp_path / "without")


def test_an_image_that_never_gives_views_ends_the_run(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there whenever it is looked for otherwise: no endless attempts."""

    def refuse(pictures: Pictures, plans: Sequence[StepPlan], seed: Sequence[int]) -> Iterator[StepBatch]:
        raise ImageError(pictures.domains[0].paths[0], "cannot be read")
        yield

    monkeypatch.setattr(Pictures, "views", refuse)
    with pytest.raises(ImageError, match="cannot be read"):
        train(sources, tmp_path / "run", head(optimiser__epochs=1, data__cache_dir="none"))


def test_a_domain_of_unreadable_images_alone(sources: list[str], tmp_path: Path) -> None:
    copies, _ = copied(sources, tmp_path)
    for file in Path(copies[0]).rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(UcdirError, match=r"(\d+) of the \1 images of domain 'photo' cannot be read"):
        train(copies, tmp_path / "run", head())


def copied(sources: list[str], folder: Path) -> tuple[list[str], Path]:
    """Copies of the domains, and the first image of the first."""
    copies = [str(shutil.copytree(source, folder / Path(source).name)) for source in sources]
    return copies, min(Path(copies[0]).rglob("*.jpg"))


def with_cache(settings: Settings, folder: str | Path) -> DataSettings:
    return settings.data.model_copy(update={"cache_dir": str(folder)})
