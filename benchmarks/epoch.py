"""What does an epoch cost, beside the way of the released code?

    python benchmarks/epoch.py ../shared/data/pacs/photo ../shared/data/pacs/sketch --backbone torchvision/resnet18 --rounds 3

`plain` is the released code's way, written anew: float32, Pillow views from worker processes that decode a file for every
pair, N x M masks, and two embedding passes, in each of which the smaller domain is repeated to the length of the larger one.
`ours` is `ucdir.learn` as `ucdir train` runs it, with the pixel cache filled. Variants take turns within a round, each in a
process of its own. A turn is some steps and some embedded images; the epoch of these folders is computed from them, without
clustering and scores, which `benchmarks/kmeans.py` and `benchmarks/scoring.py` time. The limit of a step is the time of its
multiplications at the speed of a large matrix product. Prints Markdown.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import Apart, machine, matrix_product, seconds, spread, times_faster
from PIL import Image
from plain import drawn, moco_views
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from ucdir.images.domains import Domain, load_domains
from ucdir.images.epoch_plan import count_steps
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import worker_count
from ucdir.learn.bank import MemoryBank
from ucdir.learn.clusters import kmeans
from ucdir.learn.inputs import Pictures
from ucdir.learn.step import training_step
from ucdir.learn.trainer import build_trainer
from ucdir.model.device import choose_device, choose_precision
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.settings import Settings, load_settings

LIMIT = 10**11
WEIGHTS = {"instance": 1.0, "cluster": 0.5, "entropy": 0.5, "distance": 0.5}


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
    parser.add_argument("--images", type=int, default=1024, help="embedded in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clusters", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also with both networks translated by torch.compile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        domains = load_domains(arguments.folders or drawn(Path(folder), 600), classes="none")
        most = count_steps([len(domain) for domain in domains], arguments.batch_size) - 1
        if arguments.steps > most:
            parser.error(
                f"--steps {arguments.steps}: an epoch of these folders has {most} after the first. Use at most {most}."
            )
        folders = domains, arguments, Path(folder)
        prepared = {
            "plain": (plain, *folders[:2]),
            "ours": (ours, *folders, "auto"),
            "ours, float32": (ours, *folders, "float32"),
        }
        if arguments.compile:
            prepared["ours, compiled"] = (compiled, *folders)
        with ExitStack() as ended:
            variants = {name: ended.enter_context(Apart(*how)) for name, how in prepared.items()}
            costs: dict[str, list[Cost]] = {name: [] for name in variants}
            for _ in range(arguments.rounds):
                for name, variant in variants.items():
                    costs[name].append(variant())
            memory = {name: variant.highest() for name, variant in variants.items()}
        print(table(costs, memory, [len(domain) for domain in domains], arguments))


def table(costs: dict[str, list[Cost]], memory: dict[str, float], lengths: list[int], arguments: argparse.Namespace) -> str:
    """Markdown."""
    steps = count_steps(lengths, arguments.batch_size)
    embedded = {name: sum(lengths) for name in costs} | {"plain": 4 * max(lengths)}
    work = 4 * arguments.batch_size * len(lengths) * operations(arguments) / 1e9
    fastest = max(large_product(torch.float32), matrix_product() if choose_device().type == "cpu" else 0.0)
    limits = {"float32": work / fastest, "bfloat16": work / large_product(torch.bfloat16)}
    images, limit32, limit16 = " + ".join(f"{length:,}" for length in lengths), limits["float32"], limits["bfloat16"]
    lines = [
        f"{machine(f'torch {torch.__version__}', on_device())}\n\n{arguments.backbone}, {arguments.image_size} px, "
        f"{arguments.batch_size} images of each of {len(lengths)} domains a step; {arguments.rounds} rounds of "
        f"{arguments.steps} steps and {arguments.images} embedded images. An epoch of {images} images is {steps} steps. "
        f"Limit of a step, {work:,.0f} thousand million operations: {limit32:.2f} s in float32, {limit16:.2f} s in bfloat16.\n",
        "| variant | s a step (range) | images/s embedded | embedded an epoch | s an epoch | to plain (range) | memory GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    epochs = {name: [steps * cost.step + embedded[name] * cost.image for cost in found] for name, found in costs.items()}
    for name, found in costs.items():
        rate = 1 / statistics.median(cost.image for cost in found)
        lines.append(
            f"| {name} | {spread([cost.step for cost in found])} | {rate:.0f} | {embedded[name]:,} "
            f"| {statistics.median(epochs[name]):.0f} | {times_faster(epochs['plain'], epochs[name])} times as fast "
            f"| {memory[name] / 1024:.1f} |"
        )
    return "\n".join(lines)


def operations(arguments: argparse.Namespace) -> float:
    """Multiplications and additions of one image on its way forward. Forth, back twice and the key view are four times that."""
    encoder = build_encoder(arguments.backbone, "none", arguments.image_size, 128).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, arguments.image_size, arguments.image_size, dtype=torch.uint8))
    return float(counter.get_total_flops())


def large_product(dtype: torch.dtype, size: int = 4096) -> float:
    """GF/s of a square matrix product on the device that trains, the best of several."""
    device = choose_device()
    values = torch.ones(size, size, dtype=dtype, device=device)

    def multiply() -> None:
        (values @ values)[0, 0].item()

    return max(2 * size**3 / seconds(multiply) / 1e9 for _ in range(5))


def on_device() -> str:
    device = choose_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"


def finish(device: torch.device) -> None:
    """Wait until `device` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(domains: tuple[Domain, ...], arguments: argparse.Namespace, folder: Path, precision: str) -> Callable[[], Cost]:
    return Ours(domains, arguments, folder, precision).turn


def compiled(domains: tuple[Domain, ...], arguments: argparse.Namespace, folder: Path) -> Callable[[], Cost]:
    trained = Ours(domains, arguments, folder, "auto")
    for network in (trained.trainer.encoder, trained.trainer.searcher):
        network.compile()
    trained.turn()  # translates
    return trained.turn


def plain(domains: tuple[Domain, ...], arguments: argparse.Namespace) -> Callable[[], Cost]:
    return Plain(domains, arguments).turn


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
        finish(trainer.device)
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
            trainer.objective,
            WEIGHTS,
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
        self.domains, self.arguments, self.device = domains, arguments, choose_device()
        torch.manual_seed(0)
        self.query = build_encoder(arguments.backbone, "none", arguments.image_size, 128).to(self.device)
        self.query.forward = plain_forward.__get__(self.query)  # type: ignore[method-assign]
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.key.forward = plain_forward.__get__(self.key)  # type: ignore[method-assign]
        self.optimiser = torch.optim.SGD(self.query.parameters(), 2e-4, momentum=0.9, weight_decay=1e-4, foreach=False)
        place = {"device": self.device}
        self.banks = [F.normalize(torch.randn(len(domain), 128, **place), dim=1) for domain in domains]
        self.assignments = [torch.randint(arguments.clusters, (len(domain),), **place) for domain in domains]
        self.prototypes = F.normalize(torch.randn(len(domains), arguments.clusters, 128, **place), dim=2)

    def turn(self) -> Cost:
        return Cost(self.train(), self.embed())

    def train(self) -> float:
        """Seconds of a step."""
        loaders = [
            iter(self.loader(domain, transforms.Compose([moco_views(self.arguments.image_size), normalised()]), True))
            for domain in self.domains
        ]
        self.query.train()
        self.key.train()
        self.step([next(loader) for loader in loaders])
        started = time.perf_counter()
        for _ in range(self.arguments.steps):
            self.step([next(loader) for loader in loaders])
        finish(self.device)
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
                    self.key(views.to(self.device)).cpu()
                    count += len(views)
        return (time.perf_counter() - started) / count

    def loader(self, domain: Domain, view: Any, shuffle: bool) -> "DataLoader[Any]":
        workers = max(1, worker_count(0) // len(self.domains))
        return DataLoader(Pairs(domain, view), self.arguments.batch_size, shuffle, num_workers=workers, drop_last=shuffle)

    def step(self, batches: list[Any]) -> None:
        batches = [[part.to(self.device) for part in batch] for batch in batches]
        queries = self.query(torch.cat([query for query, _, _ in batches]))
        with torch.no_grad():
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.data = slow.data * 0.999 + fast.data * 0.001
            keys = torch.cat([key for _, key, _ in batches])
            order = torch.randperm(len(keys), device=self.device)
            found = torch.empty(len(keys), 128, device=self.device)
            for half in (order[::2], order[1::2]):
                found[half] = self.key(keys[half])
        size = len(batches[0][0])
        total = torch.zeros((), device=self.device)
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
        logits[torch.arange(len(ids), device=self.device), ids] = (query * key).sum(dim=1)
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


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
