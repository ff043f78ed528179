"""Domains as the scripts here need them: features of all views, and classes for the scores alone."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch

from ucdir.embedding.compute import Compute
from ucdir.embedding.view_features import view_features
from ucdir.images.domains import class_ids, load_domains
from ucdir.images.pixel_cache import open_cache
from ucdir.images.style_views import DEFAULT_VIEWS
from ucdir.learn.align import Seen
from ucdir.model.device import choose_device
from ucdir.model.encoder import build_encoder
from ucdir.scoring.directions import EmbeddedDomain, evaluate_pair, expanded_domain


@dataclass(frozen=True)
class LookedAt:
    """A domain whose images have been seen in all views.

    seen     (N, V, F) features
    classes  (N,) int64, places in `names`
    """

    seen: Seen
    classes: torch.Tensor
    names: tuple[str, ...]

    def subset(self, kept: frozenset[str]) -> "LookedAt":
        """The images of some classes alone."""
        wanted = torch.tensor([name in kept for name in self.names])[self.classes]
        features = self.seen.features[wanted.numpy()]
        return LookedAt(Seen(self.seen.name, features, self.seen.device), self.classes[wanted], self.names)


def arguments(text: str) -> argparse.ArgumentParser:
    """What every script here takes."""
    asked = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folders", nargs="+")
    asked.add_argument("--weights", required=True)
    asked.add_argument("--backbone", default="torchvision/mobilenet_v2")
    asked.add_argument("--cache-dir", default="auto")
    return asked


def look_at(given: argparse.Namespace) -> list[LookedAt]:
    """The domains in folders with a folder for each class."""
    device = choose_device("auto")
    encoder = build_encoder(given.backbone, given.weights, 224)
    compute = Compute.named(cache=open_cache(given.cache_dir, 20.0, print))
    domains = load_domains(given.folders, classes="folders")
    names, labels = class_ids(domains)
    parts = [view_features(encoder, domain.paths, DEFAULT_VIEWS, compute) for domain in domains]
    return [
        LookedAt(Seen(domain.name, part.values, device), _of(ids, part.image_ids), tuple(names))
        for domain, part, ids in zip(domains, parts, labels, strict=True)
    ]


def both_ways(parts: Sequence[LookedAt], rows: Sequence[torch.Tensor], hits: int, figures: Sequence[str]) -> list[float]:
    """Mean scores over all directions of domains embedded as `rows`; queries first move toward `hits` of their hits."""
    embedded = [EmbeddedDomain(part.seen.name, own, part.classes) for part, own in zip(parts, rows, strict=True)]
    ks = tuple(sorted({int(figure.rpartition("@")[2]) for figure in figures if not figure.endswith("@All")}))
    found = [
        evaluate_pair(expanded_domain(query, gallery, hits), gallery, ks, 0) for query, gallery in permutations(embedded, 2)
    ]
    return [float(np.mean([part[figure].value for part in found])) for figure in figures]


def _of(ids: Sequence[int] | np.ndarray, images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(ids, np.int64)[images])
