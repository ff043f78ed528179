"""What does an epoch cost, beside the way of the released code?

    python benchmarks/epoch.py ../shared/data/pacs/photo ../shared/data/pacs/sketch --backbone torchvision/resnet18 --rounds 3

`plain` is the released code's way, written anew: float32, Pillow views from worker processes that decode a file for every
pair, N x M masks, and two embedding passes, in each of which the smaller domain is repeated to the length of the larger one.
`ours` is `ucdir.learn` as `ucdir train` runs it, with the pixel cache filled. Variants take turns within a round. A turn is
some steps and some embedded images; the epoch of these folders is computed from them. Prints Markdown.
"""

import argparse
import copy
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ucdir.config import Settings, load_settings
from ucdir.data.cache import PixelCache
from ucdir.data.domain import Domain, load_domains
from ucdir.data.plan import count_steps
from ucdir.drawing.collection import draw_collections
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import kmeans
from ucdir.learn.inputs import Pictures
from ucdir.learn.objective import TermWeights
from ucdir.learn.step import training_step
from ucdir.learn.trainer import build_trainer
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import Encoder, build_encoder

LIMIT = 10**11
WEIGHTS = TermWeights(instance=1.0, cluster=0.5, entropy=0.5, distance=0.5)


@dataclass(frozen=True)
class Cost:
    """Seconds of a step with its views, and of an embedded image."""

    step: float
    image: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", help="two; default: drawn pictures")
    parser.add_argument("--backbone", default="torchvision/resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="of a turn")
    parser.add_argument("--images", type=int, default=256, help="embedded in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        domains = load_domains(arguments.folders or drawn(Path(folder)), classes="none")
        variants: dict[str, Callable[[], Cost]] = {
            "plain": Plain(domains, arguments).turn,
            "ours": Ours(domains, arguments, Path(folder), "auto").turn,
            "ours, float32": Ours(domains, arguments, Path(folder), "float32").turn,
        }
        costs: dict[str, list[Cost]] = {name: [] for name in variants}
        for _ in range(arguments.rounds):
            for name, turn in variants.items():
                costs[name].append(turn())
        print(table(costs, [len(domain) for domain in domains], arguments))


def table(costs: dict[str, list[Cost]], lengths: list[int], arguments: argparse.Namespace) -> str:
    """Markdown."""
    steps = count_steps(lengths, arguments.batch_size)
    embedded = {name: sum(lengths) for name in costs} | {"plain": 4 * max(lengths)}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    lines = [
        f"{date.today()}: {os.cpu_count()} cores, load average {load:.1f}, torch {torch.__version__}; {arguments.backbone}, "
        f"{arguments.image_size} px, {arguments.batch_size} images of each of {len(lengths)} domains a step, "
        f"{arguments.rounds} rounds of {arguments.steps} steps and {arguments.images} embedded images; an epoch of "
        f"{' + '.join(f'{length:,}' for length in lengths)} images is {steps} steps.\n",
        "| variant | s a step (range) | images/s embedded | images embedded an epoch | s an epoch, computed | to plain |",
        "|---|---|---|---|---|---|",
    ]
    epochs = {
        name: steps * statistics.median(c.step for c in found) + embedded[name] * statistics.median(c.image for c in found)
        for name, found in costs.items()
    }
    for name, found in costs.items():
        step = sorted(cost.step for cost in found)
        rate = 1 / statistics.median(cost.image for cost in found)
        lines.append(
            f"| {name} | {statistics.median(step):.2f} ({step[0]:.2f} to {step[-1]:.2f}) | {rate:.0f} | {embedded[name]:,} "
            f"| {epochs[name]:.0f} | {epochs['plain'] / epochs[name]:.2f} times as fast |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return "\n".join([*lines, f"\nLargest memory of the process with all variants: {peak:.1f} GiB."])


class Ours:
    """`ucdir.learn` with a filled cache, every term on."""

    def __init__(self, domains: tuple[Domain, ...], arguments: argparse.Namespace, folder: Path, precision: str) -> None:
        self.arguments = arguments
        settings = settings_of(arguments)
        device = choose_device()
        chosen = choose_precision(precision, device)
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        torch.manual_seed(0)
        encoder = build_encoder(arguments.backbone, "none", arguments.image_size, 128)
        few = tuple(domain.subset(range(min(len(domain), arguments.images // 2))) for domain in domains)
        whole = Pictures(domains, settings, device, chosen, PixelCache(cache, LIMIT))
        self.few = Pictures(few, settings, device, chosen, PixelCache(cache, LIMIT))
        self.trainer = build_trainer(settings, self.few, encoder, device, chosen)
        self.whole = whole
        generator = torch.Generator().manual_seed(0)
        for domain in domains:  # of full size, of random rows: how long a step takes does not depend on their values
            rows = F.normalize(torch.randn(len(domain), 128, generator=generator), dim=1)
            self.trainer.banks.append(MemoryBank(rows.to(device)))
            self.trainer.clusterings.append((kmeans(rows, arguments.clusters, 2, 1, generator).to(device),))
        self.turn()  # fills the cache

    def train(self) -> float:
        """Seconds of a step. Every turn has the same steps."""
        trainer, steps = self.trainer, self.whole.steps(epoch=0)
        trainer.encoder.train()
        trainer.searcher.train()
        self.step(next(steps))
        started = time.perf_counter()
        for _ in range(self.arguments.steps):
            self.step(next(steps))
        return (time.perf_counter() - started) / self.arguments.steps

    def step(self, parts: list[Any]) -> None:
        trainer = self.trainer
        training_step(
            trainer.network,
            trainer.encoder,
            trainer.momentum_encoder,
            trainer.banks,
            trainer.clusterings,
            parts,
            WEIGHTS,
            trainer.settings,
            trainer.optimiser,
            trainer.device,
            trainer.precision,
        )

    def turn(self) -> Cost:
        step = self.train()
        started = time.perf_counter()
        self.few.embed(self.trainer.searcher, lambda count: None)
        return Cost(step, (time.perf_counter() - started) / sum(map(len, self.few.domains)))


class Plain:
    """The way of the released code: float32, contiguous, Pillow in two worker processes, masks, two passes."""

    def __init__(self, domains: tuple[Domain, ...], arguments: argparse.Namespace) -> None:
        self.domains, self.arguments = domains, arguments
        torch.manual_seed(0)
        self.query = build_encoder(arguments.backbone, "none", arguments.image_size, 128)
        self.query.forward = plain_forward.__get__(self.query)  # type: ignore[method-assign]
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.key.forward = plain_forward.__get__(self.key)  # type: ignore[method-assign]
        self.optimiser = torch.optim.SGD(self.query.parameters(), 2e-4, momentum=0.9, weight_decay=1e-4, foreach=False)
        self.banks = [F.normalize(torch.randn(len(domain), 128), dim=1) for domain in domains]
        self.assignments = [torch.randint(arguments.clusters, (len(domain),)) for domain in domains]
        self.prototypes = F.normalize(torch.randn(len(domains), arguments.clusters, 128), dim=2)

    def turn(self) -> Cost:
        return Cost(self.train(), self.embed())

    def train(self) -> float:
        """Seconds of a step."""
        loaders = [iter(self.loader(domain, plain_views(self.arguments.image_size), True)) for domain in self.domains]
        self.query.train()
        self.key.train()
        self.step([next(loader) for loader in loaders])
        started = time.perf_counter()
        for _ in range(self.arguments.steps):
            self.step([next(loader) for loader in loaders])
        return (time.perf_counter() - started) / self.arguments.steps

    def embed(self) -> float:
        """Seconds of an image."""
        size = self.arguments.image_size
        plain = transforms.Compose([transforms.Resize(round(size * 8 / 7)), transforms.CenterCrop(size), normalised()])
        count = 0
        self.key.eval()
        started = time.perf_counter()
        with torch.no_grad():
            for domain in self.domains:
                few = domain.subset(range(min(len(domain), self.arguments.images // 2)))
                for views, _, _ in self.loader(few, plain, False):
                    self.key(views)
                    count += len(views)
        return (time.perf_counter() - started) / count

    def loader(self, domain: Domain, view: Any, shuffle: bool) -> "DataLoader[Any]":
        return DataLoader(Pairs(domain, view), self.arguments.batch_size, shuffle=shuffle, num_workers=1, drop_last=shuffle)

    def step(self, batches: list[Any]) -> None:
        queries = self.query(torch.cat([query for query, _, _ in batches]))
        with torch.no_grad():
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.data = slow.data * 0.999 + fast.data * 0.001
            keys = torch.cat([key for _, key, _ in batches])
            order = torch.randperm(len(keys))
            found = torch.empty(len(keys), 128)
            for half in (order[::2], order[1::2]):
                found[half] = self.key(keys[half])
        size = len(batches[0][0])
        total = torch.zeros(())
        for number, (_, _, ids) in enumerate(batches):
            own = slice(number * size, (number + 1) * size)
            self.banks[number][ids] = found[own]
            total = total + self.terms(number, queries[own], found[own], ids)
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def terms(self, number: int, query: Tensor, key: Tensor, ids: Tensor) -> Tensor:
        """Two N x M matrices of logits, a mask of the same size, and the terms between domains."""
        bank = self.banks[number].clone().detach()
        logits = torch.mm(query, bank.T)
        logits[torch.arange(len(ids)), ids] = (query * key).sum(dim=1)
        instance = F.cross_entropy(logits / 0.2, ids)
        mask = (self.assignments[number][ids][:, None] == self.assignments[number][None]).float()
        again = torch.mm(query, bank.T) / 0.2
        exponentials = torch.exp(again)
        likelihood = again - torch.log(exponentials.sum(dim=1, keepdim=True))
        cluster = -((mask * likelihood).sum(dim=1) / mask.sum(dim=1)).mean()
        soft = [F.softmax(query @ prototypes.T / 0.1, dim=1) for prototypes in self.prototypes]
        entropy = -sum((part * (part + 1e-8).log()).sum(dim=1).mean() for part in soft)
        maps = [1 - F.normalize(part, dim=1) @ F.normalize(part, dim=1).T for part in soft]
        distance = F.pairwise_distance(maps[0], maps[1]).square().mean()
        combined: Tensor = instance + 0.5 * cluster + 0.5 * entropy + 0.5 * distance
        return combined


class Pairs(Dataset[Any]):
    """Two views of each image of a domain, decoded anew each time."""

    def __init__(self, domain: Domain, view: Any) -> None:
        self.paths, self.view = domain.paths, view

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, int]:
        with Image.open(self.paths[row]) as file:
            image = file.convert("RGB")
        return self.view(image), self.view(image), row


def plain_forward(encoder: Encoder, images: Tensor) -> Tensor:
    """Normalised images to unit rows, in the memory format they come in."""
    assert encoder.head is not None
    return F.normalize(encoder.head(encoder.backbone(images)), dim=1)


def plain_views(size: int) -> Any:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([pillow_blur], p=0.5),
            transforms.RandomHorizontalFlip(),
            normalised(),
        ]
    )


def pillow_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def normalised() -> Any:
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def settings_of(arguments: argparse.Namespace) -> Settings:
    wanted = {
        "encoder.backbone": arguments.backbone,
        "encoder.weights": "none",
        "encoder.image_size": arguments.image_size,
        "optimiser.batch_size": arguments.batch_size,
        "method.num_clusters": (arguments.clusters,),
        "method.entropy_temperature": 0.1,
        "method.distance_temperature": 0.1,
    }
    return load_settings(assignments=wanted)


def drawn(folder: Path) -> list[str]:
    pictures = draw_collections(folder / "images", 30, size=256)
    return [str(pictures.photo), str(pictures.drawing)]


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
