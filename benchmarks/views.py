"""How many training views a second, beside Pillow and torchvision as research scripts use them?

    python benchmarks/views.py ../shared/data/pacs/photo ../shared/data/pacs/sketch --images 512 --rounds 5

`plain` opens and decodes a file for each pair of views and makes them of Pillow images with torchvision's first transforms.
`ours` are whole steps of training without the network. The variants take turns within each round, so that a busy moment of
the machine hits all of them; medians, and the slowest and fastest turn in brackets. Without folders the pictures are drawn as
`ucdir demo` draws them, at 256 px. Prints Markdown.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import machine
from PIL import Image
from plain import drawn, moco_views
from torchvision import transforms

from ucdir.images.domains import Domain, load_domains
from ucdir.images.epoch_plan import plan_epoch
from ucdir.images.pixel_cache import PixelCache
from ucdir.images.reading import read_ahead, worker_count
from ucdir.images.step_batches import batches
from ucdir.model.device import choose_device

BATCH, LIMIT = 64, 10**11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", help="default: drawn pictures")
    parser.add_argument("--images", type=int, default=512, help="of all folders together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 128])
    parser.add_argument("--workers", type=int, default=0, help="threads; 0 = one per core")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        domains = sampled(arguments.folders or drawn(Path(folder), arguments.images), arguments.images)
        count, workers = sum(map(len, domains)), worker_count(arguments.workers)
        print(f"{machine(accelerator())}; {count} images, {workers} threads, {arguments.rounds} rounds\n")
        print("| px | views | views/s (range) | to plain |\n|---|---|---|---|")
        for size in arguments.sizes:
            compare(domains, size, workers, arguments.rounds, Path(folder))


def compare(domains: list[Domain], size: int, workers: int, rounds: int, folder: Path) -> None:
    device = choose_device()
    full = PixelCache(made(folder / f"full-{size}"), LIMIT)
    step_views(domains, size, workers, full)
    variants: dict[str, Callable[[int], int]] = {
        "plain": lambda turn: plain_views(domains, size, workers),
        "ours, cache empty": lambda turn: step_views(
            domains, size, workers, PixelCache(made(folder / f"{size}-{turn}"), LIMIT)
        ),
        "ours, no cache": lambda turn: step_views(domains, size, workers, None),
        "ours, cache full": lambda turn: step_views(domains, size, workers, full),
        f"ours, cache full, rendered in batches on {device}": lambda turn: step_views(domains, size, workers, full, device),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    threads = torch.get_num_threads()
    for turn in range(rounds):
        for name, run in variants.items():
            torch.set_num_threads(threads if "batches" in name else 1)  # threads of torch beside ours slow plain down
            started = time.perf_counter()
            views = run(turn)
            rates[name].append(views / (time.perf_counter() - started))
            shutil.rmtree(folder / f"{size}-{turn}", ignore_errors=True)
    for name, found in rates.items():
        ratio = statistics.median(found) / statistics.median(rates["plain"])
        print(f"| {size} | {name} | {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) | {ratio:.2f} |")


def plain_views(domains: list[Domain], size: int, workers: int) -> int:
    """The transforms of MoCo v2 on Pillow images; the number of views made."""
    transform = transforms.Compose([moco_views(size), transforms.PILToTensor()])

    def pair(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(path) as file:
            image = file.convert("RGB")
        return transform(image), transform(image)

    paths = [path for domain in domains for path in domain.paths]
    views = 0
    for pairs in read_ahead(paths, pair, BATCH, workers):
        views += sum(len(torch.stack(side)) for side in zip(*pairs, strict=True))
    return views


def step_views(
    domains: list[Domain], size: int, workers: int, cache: PixelCache | None, device: torch.device | None = None
) -> int:
    """The steps of an epoch; the number of views made."""
    plans = [part for step in plan_epoch([len(domain) for domain in domains], BATCH, (0, 0)) for part in step]
    views = 0
    for step in batches(domains, plans, size, (0, 0), workers, cache=cache, device=device):
        views += len(step.query_views) + len(step.key_views)
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return views


def sampled(folders: list[str], images: int) -> list[Domain]:
    """As many images of each, spread over its folders."""
    domains = load_domains(folders, classes="none")
    each = images // len(domains)
    return [domain.subset(np.linspace(0, len(domain) - 1, min(each, len(domain))).astype(int).tolist()) for domain in domains]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def accelerator() -> str:
    device = choose_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"torch on {device}"


if __name__ == "__main__":
    main()
