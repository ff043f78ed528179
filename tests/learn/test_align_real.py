"""What must hold on real images: a few of each class of PACS, seen by the real network. Skips where they are not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ucdir.embedding.compute import Compute
from ucdir.embedding.view_features import view_features
from ucdir.images.style_views import DEFAULT_VIEWS, KEEPING_STYLE
from ucdir.learn.align import Aligned, Seen, align
from ucdir.learn.aligned_run import MIN_AGREEMENT
from ucdir.model.encoder import build_encoder
from ucdir.scoring.metrics import score
from ucdir.scoring.training_free import smoothed
from ucdir.settings import AlignSettings

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet.safetensors"
EACH = 30  # images of a class
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
KEEPS = [name in KEEPING_STYLE for name in DEFAULT_VIEWS]

Features = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def features() -> Features:
    """Of each domain (N, V, F) and the (N,) classes of the images."""
    if not WEIGHTS.is_file():
        pytest.skip("the shared images and weights are not here")
    encoder = build_encoder("torchvision/mobilenet_v2", str(WEIGHTS), 224)
    found = {}
    for domain in ("photo", "art_painting", "sketch"):
        folders = [SHARED / "data" / "pacs" / domain / name for name in CLASSES]
        paths = [path for folder in folders for path in sorted(folder.iterdir())[:EACH]]
        seen = view_features(encoder, paths, DEFAULT_VIEWS, Compute.named("cpu"))
        found[domain] = seen.values, np.array([CLASSES.index(paths[row].parent.name) for row in seen.image_ids])
    return found


def aligned(features: Features, *parts: tuple[str, Sequence[str]]) -> Aligned:
    """The images of some classes of some domains."""
    domains = []
    for name, classes in parts:
        values, labels = features[name]
        domains.append(Seen(name, values[np.isin(labels, [CLASSES.index(c) for c in classes])], torch.device("cpu")))
    return align(domains, KEEPS, AlignSettings())


def test_folders_that_share_nothing_are_told_from_those_that_do(features: Features) -> None:
    other = aligned(features, ("photo", ("dog", "elephant", "giraffe")), ("sketch", ("guitar", "house", "person")))
    assert other.agreement < MIN_AGREEMENT
    for one, another in (("photo", "sketch"), ("photo", "art_painting"), ("art_painting", "sketch")):
        assert aligned(features, (one, CLASSES), (another, CLASSES)).agreement > MIN_AGREEMENT


def test_paintings_and_sketches_find_each_other_better_than_without_learning(features: Features) -> None:
    names = ("art_painting", "sketch")
    labels = [torch.from_numpy(features[name][1]) for name in names]
    free = [smoothed(torch.nn.functional.normalize(torch.from_numpy(features[name][0][:, 0]).float(), dim=1)) for name in names]
    learned = [domain.embeddings for domain in aligned(features, *((name, CLASSES) for name in names)).domains]
    before, after = (score(*rows, *labels, ks=(5,), resamples=0)["mAP@All"].value for rows in (free, learned))
    assert after > before + 0.05
