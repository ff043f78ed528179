"""Do images that an encoder has not learned from find as much as those that it has? Both search a gallery of seen images.

usage: python benchmarks/held_out.py RUN [RUN ...]

RUN is a run that learned from the training split of manifests, such as a cell of `ucdir benchmark --protocol held-out`. Prints
P@50 and mAP@All of each pair, percent, means of both directions; queries moved toward their hits as in `ucdir search`.
"""

import argparse
from itertools import permutations
from pathlib import Path

import torch

from ucdir.embedding.backbone_features import embed_with
from ucdir.embedding.compute import Compute
from ucdir.images.domains import class_ids, load_domains
from ucdir.images.held_out import TEST, TRAIN
from ucdir.images.pixel_cache import open_cache
from ucdir.model.encoder import Encoder
from ucdir.retrieval.expansion import hits_of
from ucdir.scoring.directions import EmbeddedDomain, evaluate_pair, expanded_domain
from ucdir.settings import load_settings

FIGURES = ("P@50", "mAP@All")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("runs", nargs="+", type=Path)
    print("| pair | queries | " + " | ".join(FIGURES) + " |\n|---|---|" + "---|" * len(FIGURES))
    for run in asked.parse_args().runs:
        told(run)


def told(run: Path) -> None:
    """The lines of one run."""
    settings = load_settings(file=run / "config.toml")
    cache = open_cache(settings.data.cache_dir, settings.data.cache_gb, print)
    compute = Compute.named(settings.run.device, settings.run.precision, cache=cache)
    encoder = Encoder.load(run / "encoder")
    parts = [load_domains(settings.data.domains, classes="folders", split=split) for split in (TRAIN, TEST)]
    _, labels = class_ids([*parts[0], *parts[1]])
    embedded = []
    for domain, ids in zip([*parts[0], *parts[1]], labels, strict=True):
        found = embed_with({"encoder": encoder}, domain.paths, compute, domain=domain.name)["encoder"]
        embedded.append(EmbeddedDomain(domain.name, found.rows, torch.from_numpy(ids)[found.image_ids]))
    seen, new = embedded[: len(parts[0])], embedded[len(parts[0]) :]
    for name, queries in (("seen", seen), ("new", new)):
        for hits in (0, hits_of(encoder.config.rows)):
            scores = [
                evaluate_pair(expanded_domain(queries[a], seen[b], hits), seen[b], (50,), 0)
                for a, b in permutations(range(len(seen)), 2)
            ]
            figures = " | ".join(f"{100 * sum(s[figure].value for s in scores) / len(scores):.1f}" for figure in FIGURES)
            pair = ", ".join(domain.name for domain in seen)
            print(f"| {pair} | {name}{', expanded' if hits else ''} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
