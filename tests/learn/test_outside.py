"""Methods and backbones from a package that ucdir does not know, through the command line and from run folders."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import draw_pair

from ucdir.errors import UcdirError, UsageError
from ucdir.learn.methods import build_objective
from ucdir.learn.objective import Objective
from ucdir.model.backbones import IMAGENET_MEAN, build_backbone
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.outside import TRUSTED
from ucdir.settings import GradientSettings, load_settings, stored_settings

pytestmark = pytest.mark.slow

PACKAGE = """
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ucdir.learn.objective import DomainStep, Objective
from ucdir.settings import GradientSettings


class PullSettings(GradientSettings):
    pull: float = 0.5


class Pull(Objective):
    settings = PullSettings

    def weights(self, epoch: int) -> dict[str, float]:
        return {"pull": self.method.pull}

    def parts(self, steps: Sequence[DomainStep], weights: Mapping[str, float]) -> dict[str, tuple[Tensor, ...]]:
        return {"pull": tuple(1 - (s.query * s.key).sum(dim=1).mean() for s in steps)}


class Tiny(nn.Module):
    mean = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def tiny(pretrained: bool) -> nn.Module:
    return Tiny()


def number(pretrained: bool) -> int:
    return 3


class Silent:
    pass


class Loose:
    settings = GradientSettings
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, with the module other_methods."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv(TRUSTED, "")
    (folder / "other_methods.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "other_methods", raising=False)
    return folder


def ucdir(package: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ucdir", *map(str, arguments)]
    known = {**os.environ, TRUSTED: "", "PYTHONPATH": f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=known)


def test_a_method_and_a_backbone_of_another_package_train_and_score(package: Path, tmp_path: Path) -> None:
    draw_pair(tmp_path)
    run, pair = tmp_path / "run", (tmp_path / "photo", tmp_path / "drawing")
    chosen = ("--method", "other_methods:Pull", "--backbone", "other_methods:tiny", "--weights", "none", "--image-size", "32")
    short = ("--epochs", "1", "--batch-size", "8", "--num-clusters", "3", "--set", "method.pull=0.25", "--set", "encoder.dim=8")
    done = ucdir(package, "train", *pair, "--out", run, *chosen, *short, "--device", "cpu", "--no-report")
    assert done.returncode == 0, done.stderr
    assert 'name = "other_methods:Pull"' in (run / "config.toml").read_text()
    assert "pull = 0.25" in (run / "config.toml").read_text()
    assert '"pull"' in (run / "metrics.jsonl").read_text()
    refused = ucdir(package, "evaluate", run, "--device", "cpu")
    assert refused.returncode == 1
    assert "needs the code of 'other_methods:" in refused.stderr
    assert refused.stderr.rstrip().endswith("If you trust it, set UCDIR_MODULES=other_methods and run again.")
    resumed = ucdir(package, "train", "--out", run, "--resume")
    assert (resumed.returncode, resumed.stderr) == (1, refused.stderr)
    scored = ucdir(package, "evaluate", run, "--device", "cpu", UCDIR_MODULES="other_methods")
    assert scored.returncode == 0, scored.stderr
    assert "trained" in scored.stdout


def test_its_settings_are_checked_like_ours(package: Path) -> None:
    given = {"method.name": "other_methods:Pull", "method.pull": 2}
    found = load_settings(assignments=given)
    assert isinstance(found.method, GradientSettings)
    assert found.method.model_dump()["pull"] == 2.0
    assert isinstance(build_objective(found, 2), Objective)
    assert build_objective(found, 2).weights(0) == {"pull": 2.0}
    with pytest.raises(UsageError, match=r"setting method\.pull=much is not valid"):
        load_settings(assignments=given | {"method.pull": "much"})
    with pytest.raises(UsageError, match="temperature has no effect with method other_methods:Pull"):
        load_settings(assignments=given | {"method.temperature": 0.1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_methods:Push", r"cannot load method 'other_methods:Push' \(AttributeError: .*\)\. Install its package"),
        ("no_such_module:Pull", r"cannot load method 'no_such_module:Pull' \(ModuleNotFoundError: .*\)\."),
        ("other_methods:Silent", r"method 'other_methods:Silent' has no settings\. Give its class"),
        ("pull", r"unknown method 'pull'\. .* is named module:CLASS"),
    ],
)
def test_what_is_not_a_method_is_named(package: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_settings(assignments={"method.name": name})


def test_a_class_that_is_not_an_objective_is_refused(package: Path) -> None:
    settings = load_settings(assignments={"method.name": "other_methods:Loose"})
    with pytest.raises(UsageError, match="method 'other_methods:Loose' is not a subclass of"):
        build_objective(settings, 2)


@pytest.mark.parametrize("name", ["other_methods:tiny", "os:abort", "subprocess:run"])
def test_a_folder_does_not_choose_what_code_runs(package: Path, tmp_path: Path, name: str) -> None:
    """Not even of modules that are imported anyway; once the user has named the module, it may."""
    (tmp_path / "config.toml").write_text(f'format_version = 2\n[method]\nname = "ucdir"\n[encoder]\nbackbone = "{name}"\n')
    with pytest.raises(UcdirError, match=rf"config\.toml' needs the code of '{name}'\. If you trust it, set UCDIR_MODULES="):
        stored_settings(tmp_path)
    encoder = build_encoder("other_methods:tiny", "none", 32)
    encoder.config = replace(encoder.config, backbone=name)
    encoder.save(tmp_path / "encoder")
    if name == "other_methods:tiny":
        assert Encoder.load(tmp_path / "encoder").config == encoder.config
        assert stored_settings(tmp_path).encoder.backbone == name
    else:
        with pytest.raises(UcdirError, match=rf"encoder '.*' needs the code of '{name}'"):
            Encoder.load(tmp_path / "encoder")


def test_a_backbone_may_have_its_own_normalisation(package: Path) -> None:
    found = build_backbone("other_methods:tiny", 32)
    assert (found.feature_dim, found.mean) == (8, (0.5, 0.5, 0.5))
    assert found.std != IMAGENET_MEAN
    with pytest.raises(UsageError, match="backbone 'other_methods:number' returned int, expected a torch"):
        build_backbone("other_methods:number", 32)
