"""The resume state on disk: complete, atomic, and refused when damaged."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ucdir.errors import UcdirError
from ucdir.learn.checkpoint import BestEpoch, ResumeState, load_checkpoint, save_checkpoint
from ucdir.learn.clusters import Clusters
from ucdir.learn.label_free import Reference


@pytest.fixture
def state() -> ResumeState:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    clusters = Clusters(torch.tensor([0, 1, 1]), torch.eye(2), 0.25)
    return ResumeState(
        epoch=3,
        encoder=network.state_dict(),
        momentum_encoder=network.state_dict(),
        objective={"prototypes": torch.randn(2, 3)},
        optimiser=optimiser.state_dict(),
        banks=(torch.randn(3, 2), torch.randn(4, 2)),
        clusterings=((clusters, clusters), (clusters,)),
        reference=Reference((torch.arange(3), torch.arange(4)), (torch.zeros(3, 1).long(), torch.ones(4, 2).long())),
        best={"label-free": BestEpoch(2, 0.7)},
        seconds=1.5,
    )


def test_what_is_saved_is_loaded(state: ResumeState, tmp_path: Path) -> None:
    file = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(file, state)
    found = load_checkpoint(file)
    assert (found.epoch, found.best, found.seconds) == (3, {"label-free": BestEpoch(2, 0.7)}, 1.5)
    assert all(torch.equal(found.encoder[name], value) for name, value in state.encoder.items())
    assert found.encoder.keys() == state.encoder.keys()
    assert torch.equal(found.objective["prototypes"], state.objective["prototypes"])
    assert all(torch.equal(one, other) for one, other in zip(found.banks, state.banks, strict=True))
    assert [len(domain) for domain in found.clusterings] == [2, 1]
    assert torch.equal(found.clusterings[0][1].assignment, torch.tensor([0, 1, 1]))
    assert found.clusterings[1][0].inertia == 0.25
    assert found.reference is not None
    assert torch.equal(found.reference.hits[1], state.reference.hits[1])
    momentum = found.optimiser["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, state.optimiser["state"][0]["momentum_buffer"])
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(state: ResumeState, tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, state)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(file, replace(state, epoch=lambda: 4))
    assert load_checkpoint(file).epoch == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=r"nothing to resume: no checkpoint at '.*last\.pt'"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("left", [0.0, 0.01, 0.5, 0.99])
def test_truncated(state: ResumeState, tmp_path: Path, left: float) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, state)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(UcdirError, match="is damaged"):
        load_checkpoint(file)


@pytest.mark.parametrize("content", [b"no checkpoint", b"PK\x03\x04", bytes(1000)])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "last.pt"
    file.write_bytes(content)
    with pytest.raises(UcdirError, match="is damaged"):
        load_checkpoint(file)


@pytest.mark.parametrize("content", [{}, [1, 2], {"format_version": 1, "epoch": 3}])
def test_another_file_of_torch(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(UcdirError, match="is damaged"):
        load_checkpoint(tmp_path / "last.pt")


def test_another_format(state: ResumeState, tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, state)
    torch.save({**torch.load(file), "format_version": 99}, file)
    with pytest.raises(UcdirError, match="has format 99, expected 1"):
        load_checkpoint(file)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save(Bomb(tmp_path / "fired"), tmp_path / "last.pt")
    with pytest.raises(UcdirError, match="is damaged"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "fired").exists()
