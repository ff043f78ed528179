"""ORACLE: what labels of both domains would give on the same frozen features. A ceiling to look up to; it feeds nothing.

usage: python benchmarks/ceiling.py FOLDER FOLDER [FOLDER ...] --weights FILE

Ridge regression from the features of the default method's views to classes, 5 folds, both domains together; the class scores of
the images held out are their embeddings. Prints P@1, P@50 and mAP@All of each pair, percent, means of both directions.
"""

import argparse
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ucdir.data.cache import open_cache
from ucdir.data.domain import class_ids, load_domains
from ucdir.data.style_views import DEFAULT_VIEWS
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import build_encoder
from ucdir.retrieval.metrics import score
from ucdir.retrieval.view_features import view_features

FOLDS, SHRINKAGE = 5, 0.1
FIGURES = ("P@1", "P@50", "mAP@All")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folders", nargs="+")
    asked.add_argument("--weights", required=True)
    asked.add_argument("--backbone", default="torchvision/mobilenet_v2")
    asked.add_argument("--cache-dir", default="auto")
    given = asked.parse_args()
    encoder = build_encoder(given.backbone, given.weights, 224)
    device = choose_device("auto")
    cache = open_cache(given.cache_dir, 20.0, print)
    domains = load_domains(given.folders, classes="folders")
    names, labels = class_ids(domains)
    seen = [
        view_features(encoder, domain.paths, DEFAULT_VIEWS, device, choose_precision("auto", device), cache=cache)
        for domain in domains
    ]
    rows = [described(part.values) for part in seen]
    classes = [torch.from_numpy(ids[part.image_ids]) for ids, part in zip(labels, seen, strict=True)]
    print("| pair | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    for a, b in combinations(range(len(domains)), 2):
        held_out = class_scores((rows[a], rows[b]), (classes[a], classes[b]), len(names))
        there = score(held_out[0], held_out[1], classes[a], classes[b], ks=(1, 50), resamples=0)
        back = score(held_out[1], held_out[0], classes[b], classes[a], ks=(1, 50), resamples=0)
        figures = " | ".join(f"{50 * (there[name].value + back[name].value):.1f}" for name in FIGURES)
        print(f"| {domains[a].name}, {domains[b].name} | {figures} |", flush=True)


def described(views: np.ndarray) -> Tensor:
    """(N, V, F) -> (N, F) float64: the mean of the unit rows of an image's views, less the domain's."""
    rows = torch.cat(
        [F.normalize(torch.from_numpy(np.array(part)).float(), dim=2).mean(dim=1) for part in np.array_split(views, 16)]
    )
    return (rows - rows.mean(dim=0)).double()


def class_scores(rows: tuple[Tensor, Tensor], classes: tuple[Tensor, Tensor], count: int) -> list[Tensor]:
    """Of both domains (N, count) class scores of every image, by ridge regression on the folds that it is not in."""
    folds = [torch.arange(len(part)) % FOLDS for part in rows]
    found = [torch.zeros(len(part), count) for part in rows]
    for fold in range(FOLDS):
        second, both = torch.zeros(rows[0].shape[1], rows[0].shape[1]).double(), torch.zeros(rows[0].shape[1], count).double()
        for part, own, which in zip(rows, classes, folds, strict=True):
            known = part[which != fold]
            wanted = F.one_hot(own[which != fold], count).double() - 1 / count
            second += known.T @ known / len(known)
            both += known.T @ wanted / len(known)
        solved = torch.linalg.solve(second + SHRINKAGE * second.trace() / len(second) * torch.eye(len(second)).double(), both)
        for part, which, into in zip(rows, folds, found, strict=True):
            into[which == fold] = (part[which == fold] @ solved).float()
    return found


if __name__ == "__main__":
    main()
