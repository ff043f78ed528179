"""Does the memory of training stay flat when the images are many?

    python benchmarks/scale.py --images 100000 --backbone torchvision/resnet18 --image-size 64

Draws so many small different pictures, half of them in each of two domains, with classes; then runs one epoch with
`ucdir train` in a process of its own: banks, every term, clustering and the oracle's scores of all images included. The memory
of that process is read every second. Prints Markdown: its highest value in each tenth of the time, and the epoch's figures.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from measure import machine
from PIL import Image

from ucdir.drawing.collection import draw_collections
from ucdir.storage import atomic_folder

CLASSES, TENTHS = 7, 10


@dataclass(frozen=True)
class Reading:
    """Seconds since the start, and MiB of the process that are no mapped file."""

    seconds: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--backbone", default="torchvision/resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=345)
    parser.add_argument("--out", type=Path, help="keep pictures and run here; default: a folder that goes afterwards")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="ucdir-scale-"))
    try:
        domains = pictures(folder / "images", arguments.images)
        print(machine(), flush=True)
        readings = train(domains, folder, arguments)
        print(table(readings, folder / "run" / "metrics.jsonl"))
    finally:
        if arguments.out is None:
            shutil.rmtree(folder)


def pictures(folder: Path, count: int) -> list[Path]:
    """Two domains of `count` / 2 different JPEG pictures of 72 px: crops of the demo's, each with a noise of its own."""
    folder = folder / f"{count}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as originals, atomic_folder(folder) as draft, ProcessPoolExecutor() as pool:
            drawn = draw_collections(Path(originals) / "drawn", 20, size=144)
            for source in (drawn.photo, drawn.drawing):
                list(pool.map(partial(vary, source, draft / source.name, count // 2), range(CLASSES)))
    return [folder / "photo", folder / "drawing"]


def vary(source: Path, domain: Path, count: int, number: int) -> None:
    """Every CLASSES-th picture of a domain, from `number` on, of one class."""
    kind = sorted(path for path in source.iterdir() if path.is_dir())[number]
    originals = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(kind.iterdir())]
    (domain / kind.name).mkdir(parents=True)
    for image in range(number, count, CLASSES):
        rng = np.random.default_rng(image)
        left, top = rng.integers(0, 72, 2)
        part = originals[image % len(originals)][top : top + 72, left : left + 72]
        noisy = np.clip(part + rng.integers(-12, 13, part.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(domain / kind.name / f"{image}.jpg", quality=80)


def train(domains: list[Path], folder: Path, arguments: argparse.Namespace) -> list[Reading]:
    """One epoch with every term on; the memory of the process meanwhile."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    started_at_once = ("cluster_start=0", "cluster_full=0.1", "alignment_start=0", "distance_temperature=0.1")
    command = [sys.executable, "-m", "ucdir", "train", *map(str, domains), "--out", str(folder / "run"), "--epochs", "1"]
    command += ["--backbone", arguments.backbone, "--weights", "none", "--image-size", str(arguments.image_size)]
    command += ["--num-clusters", str(arguments.clusters), "--set", f"data.cache_dir={folder / 'cache'}"]
    for setting in started_at_once:
        command += ["--set", f"method.{setting}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    readings = []
    while process.poll() is None:
        readings.append(Reading(time.perf_counter() - started, memory_of(process.pid)))
        time.sleep(1)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return readings


def memory_of(process: int) -> float:
    """MiB that are no mapped file; NaN where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), float("nan"))


def table(readings: list[Reading], metrics: Path) -> str:
    """Markdown."""
    ended = readings[-1].seconds
    lines = ["", "| tenth of the time | until s | highest memory MiB |", "|---|---|---|"]
    for tenth in range(TENTHS):
        first, last = (ended * edge / TENTHS for edge in (tenth, tenth + 1))
        highest = max((r.memory for r in readings if first <= r.seconds <= last), default=float("nan"))
        lines.append(f"| {tenth + 1} | {last:.0f} | {highest:,.0f} |")
    (epoch,) = (json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines())
    return "\n".join([*lines, "", f"`metrics.jsonl`: {json.dumps(epoch)}"])


if __name__ == "__main__":
    main()
