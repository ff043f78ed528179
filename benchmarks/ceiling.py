"""ORACLE: what labels of both domains would give on the same frozen features. A ceiling to look up to; it feeds nothing.

usage: python benchmarks/ceiling.py FOLDER FOLDER [FOLDER ...] --weights FILE

Ridge regression from the features of the default method's views to classes, 5 folds, both domains together; the class scores of
the images held out are their embeddings. Prints P@1, P@50 and mAP@All of each pair, percent, means of both directions.
"""

from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from looked_at import arguments, look_at
from torch import Tensor

from ucdir.scoring.metrics import score

FOLDS, SHRINKAGE = 5, 0.1
FIGURES = ("P@1", "P@50", "mAP@All")


def main() -> None:
    domains = look_at(arguments(__doc__ or "").parse_args())
    rows = [described(part.seen.features) for part in domains]
    classes = [part.classes for part in domains]
    print("| pair | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    for a, b in combinations(range(len(domains)), 2):
        held_out = class_scores((rows[a], rows[b]), (classes[a], classes[b]), len(domains[0].names))
        there = score(held_out[0], held_out[1], classes[a], classes[b], ks=(1, 50), resamples=0)
        back = score(held_out[1], held_out[0], classes[b], classes[a], ks=(1, 50), resamples=0)
        figures = " | ".join(f"{50 * (there[name].value + back[name].value):.1f}" for name in FIGURES)
        print(f"| {domains[a].seen.name}, {domains[b].seen.name} | {figures} |", flush=True)


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
