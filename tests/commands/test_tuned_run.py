"""`train --preset tune`, in a real run folder: the backbone learns what align found, and one view of a new image is enough."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import ucdir
from small_run import draw_pair, rename_and_flatten

from ucdir.commands.train import train
from ucdir.errors import InterruptedRun, UcdirError, UsageError
from ucdir.model.encoder import Encoder
from ucdir.run_folder import TUNING
from ucdir.settings import Settings, load_settings

pytestmark = pytest.mark.slow

SMALL = {
    "encoder.backbone": "timm/test_resnet",
    "encoder.weights": "none",
    "encoder.image_size": 32,
    "tune.crop_size": 16,
    "tune.image_size": 24,
    "tune.epochs": 2,
    "tune.taught": 1,
    "tune.fewest_steps": 3,
    "run.device": "cpu",
    "run.precision": "float32",
    "data.classes": "none",
}


def settings(**more: object) -> Settings:
    return load_settings("tune", assignments=SMALL | more)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world")
    draw_pair(world)
    train([str(world / "photo"), str(world / "drawing")], world / "run", settings(), report=False)
    return world


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in Encoder.load(run / "encoder").state_dict().items() if "memory" not in name}


def is_equal(one: Path, other: Path) -> bool:
    """To the last bit: the backbone and the map."""
    first, second = tensors(one), tensors(other)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def stopping_at(beginning: str) -> Callable[[str], None]:
    """Ctrl-C once a sentence is said that begins like this."""

    def log(sentence: str) -> None:
        if sentence.startswith(beginning):
            raise KeyboardInterrupt

    return log


def test_the_backbone_has_learned_and_sees_one_small_view(world: Path) -> None:
    before, after = (Encoder.load(world / "run" / name) for name in ("encoder-aligned", "encoder"))
    assert (before.config.rows, before.config.image_size, len(before.config.views)) == ("aligned", 32, 13)
    assert (after.config.rows, after.config.image_size, after.config.views) == ("tuned", 24, ("plain",))
    frozen = Encoder.load(world / "run" / "encoder-frozen")
    weights = [dict(encoder.backbone.named_parameters()) for encoder in (frozen, before, after)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    first = next(iter(weights[0]))
    assert not torch.equal(weights[0][first], weights[2][first])
    statistics = [dict(encoder.backbone.named_buffers()) for encoder in (frozen, after)]
    assert all(torch.equal(value, statistics[1][name]) for name, value in statistics[0].items())


def test_the_loss_falls(world: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = settings(**{"tune.epochs": 6, "tune.batch_size": 4})
    train([str(world / "photo"), str(world / "drawing")], tmp_path / "run", wanted, log=said.append, report=False)
    losses = [float(sentence.split()[-1]) for sentence in said if sentence.startswith("tuning, epoch")]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_stopped_run_goes_on_and_ends_in_the_same_bits(world: Path, tmp_path: Path, epochs: int) -> None:
    sources = [str(world / "photo"), str(world / "drawing")]
    stop = stopping_at(f"tuning, epoch {epochs}/" if epochs else "The domain")
    with pytest.raises(InterruptedRun, match="--resume"):
        train(sources, tmp_path / "run", settings(), log=stop, report=False)
    assert (tmp_path / "run" / TUNING).is_file() == bool(epochs)
    assert not (tmp_path / "run" / "encoder").exists()
    train((), tmp_path / "run", resume=True, report=False)
    assert is_equal(world / "run", tmp_path / "run")


def test_a_run_that_replaces_another_goes_on_from_its_last_epoch_too(world: Path, tmp_path: Path) -> None:
    sources = [str(world / "photo"), str(world / "drawing")]
    shutil.copytree(world / "run", tmp_path / "run")

    with pytest.raises(InterruptedRun, match="--resume"):
        train(sources, tmp_path / "run", settings(), overwrite=True, log=stopping_at("tuning, epoch 1/"), report=False)
    said: list[str] = []
    train((), tmp_path / "run", resume=True, log=said.append, report=False)
    assert [sentence.split(":")[0] for sentence in said if sentence.startswith("tuning")] == ["tuning, epoch 2/2"]
    assert is_equal(world / "run", tmp_path / "run")


def test_images_that_came_while_a_run_was_stopped_are_left_out(world: Path, tmp_path: Path) -> None:
    for name in ("photo", "drawing"):
        shutil.copytree(world / name, tmp_path / name)
    (next((tmp_path / "photo").iterdir()) / "broken.jpg").write_bytes(b"no image")

    wanted = settings(**{"data.max_unreadable": 0.1})
    sources, stop = [str(tmp_path / "photo"), str(tmp_path / "drawing")], stopping_at("tuning, epoch 1/")
    with pytest.raises(InterruptedRun):
        train(sources, tmp_path / "run", wanted, log=stop, report=False)
    shutil.copy(next((tmp_path / "drawing").rglob("*.png")), tmp_path / "photo" / "new.png")
    assert [Path(error.path).name for error in train((), tmp_path / "run", resume=True, report=False).skipped] == ["broken.jpg"]
    assert is_equal(world / "run", tmp_path / "run")


def test_nothing_but_the_images_decides(world: Path, tmp_path: Path) -> None:
    """Classes shuffled, files renamed, folders flattened, the domains the other way round: the same bits."""
    rename_and_flatten(world, tmp_path)
    folders = [str(tmp_path / "drawing"), str(tmp_path / "photo")]
    train(folders, tmp_path / "run", settings(**{"data.max_unreadable": 0.1}), report=False)
    one, other = (
        {name: value for name, value in tensors(run).items() if not name.startswith("alignment.recogniser")}
        for run in (world / "run", tmp_path / "run")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_damaged_checkpoint_ends_in_a_sentence(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "encoder")
    (tmp_path / "run" / TUNING).write_bytes(b"no checkpoint")
    with pytest.raises(UcdirError, match=r"checkpoint '.*tuning\.pt' is damaged .*--overwrite"):
        train((), tmp_path / "run", resume=True, report=False)


def test_a_learning_rate_that_is_too_high_ends_in_a_sentence(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=r"Lower the learning rate: --set tune\.learning_rate"):
        train(
            [str(world / "photo"), str(world / "drawing")],
            tmp_path / "run",
            settings(**{"tune.learning_rate": 1e30}),
            report=False,
        )


def test_a_backbone_that_takes_one_size_only_is_told_at_once(world: Path, tmp_path: Path) -> None:
    wanted = settings(**{"encoder.backbone": "timm/test_vit", "encoder.image_size": 160})
    with pytest.raises(UsageError, match=r"does not accept images of 24 px.*--set tune\.crop_size=160"):
        train([str(world / "photo"), str(world / "drawing")], tmp_path / "run", wanted, report=False)


def test_without_groups_the_backbone_stays_as_it_is(world: Path, tmp_path: Path) -> None:
    for name in ("photo", "drawing"):
        (tmp_path / name).mkdir()
        for path in sorted((world / name).rglob("*.*g"))[:20]:
            shutil.copy(path, tmp_path / name / f"{path.parent.name}-{path.name}")
    said: list[str] = []
    train([str(tmp_path / "photo"), str(tmp_path / "drawing")], tmp_path / "run", settings(), log=said.append, report=False)
    assert any("nothing to tune the backbone on" in sentence for sentence in said)
    assert Encoder.load(tmp_path / "run" / "encoder").config.rows == "centred"


def test_evaluate_index_and_search_take_it_like_any_encoder(world: Path, tmp_path: Path) -> None:
    sources = world / "photo", world / "drawing"
    methods = json.loads(ucdir("evaluate", world / "run", *sources, "--classes", "folders", "--json").stdout)["methods"]
    assert methods == ["frozen", "centred", "smoothed", "aligned", "tuned", "aligned + expanded", "tuned + expanded"]
    ucdir("index", world / "run", world / "photo", "--device", "cpu", "--out", tmp_path / "g")
    query = next((world / "drawing").rglob("*.png"))
    exact = ("--as", "drawing", "--precision", "float32", "--json")
    one, other = (
        json.loads(ucdir("search", tmp_path / "g", query, *exact, "--runtime", runtime).stdout)["queries"][0]["hits"]
        for runtime in ("onnx", "torch")
    )
    assert [hit["similarity"] for hit in one] == pytest.approx([hit["similarity"] for hit in other], abs=1e-4)
    ucdir("index", world / "run", world / "photo", "--rows", "aligned", "--no-export", "--out", tmp_path / "before")
    assert not np.array_equal(*(np.load(tmp_path / name / "embeddings.npy") for name in ("g", "before")))


def test_settings_of_gradient_methods_are_refused_and_its_own_named() -> None:
    with pytest.raises(UsageError, match=r"--epochs has no effect with method tune\. Use --set tune\.epochs=VALUE"):
        load_settings("tune", assignments={"optimiser.epochs": 3})
    with pytest.raises(UsageError, match=r"--set tune\.epochs has no effect with method align"):
        load_settings("align", assignments={"tune.epochs": 3})
    assert "max_blur_sigma" in load_settings("tune").to_toml()
