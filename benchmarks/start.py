"""What one `ucdir search` costs, start included: the exported encoder against the weights in torch, run in turn.

    python benchmarks/start.py --images 5000 --rounds 5

Draws a gallery of small pictures, indexes it with torchvision's MobileNetV2 at 128 px (random weights: the time is the same),
then runs the command line in a process of its own, alternating. Prints a table as Markdown.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

VARIANTS = {"exported encoder (onnx)": "onnx", "weights (torch)": "torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gallery, query = prepare(Path(folder), arguments.images)
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(arguments.rounds):
            for name, runtime in VARIANTS.items():
                times[name].append(timed("search", str(gallery), str(query), "--runtime", runtime))
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.images} images\n")
    print("| ucdir search with | median, s | fastest, s | slowest, s |\n|---|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")
    slow, fast = (median(times[name]) for name in reversed(VARIANTS))
    print(f"\nratio {slow / fast:.1f}; largest process {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


def prepare(folder: Path, count: int) -> tuple[Path, Path]:
    """A gallery of `count` pictures, and one of them."""
    import torch

    from ucdir.commands.index import index
    from ucdir.model.encoder import build_encoder

    (folder / "pictures").mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((160, 120)).save(folder / "pictures" / f"{number:06}.jpg")
    torch.manual_seed(0)
    build_encoder("torchvision/mobilenet_v2", "none", 128, dim=128).save(folder / "encoder")
    index(folder / "encoder", [str(folder / "pictures")], folder / "gallery")
    return folder / "gallery", folder / "pictures" / "000000.jpg"


def timed(*command: str) -> float:
    """Seconds that `ucdir` took in a process of its own."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ucdir", *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
