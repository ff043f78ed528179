"""A gallery folder against Milvus Lite: random unit rows in, queries out, each measured in a process of its own.

    python benchmarks/engines.py [--counts 10000 100000 300000] [--dim 128] [--work FOLDER]

Prints a Markdown table. Times are wall-clock and, in brackets, processor time of all threads, which other programs on the
machine disturb less: writing; opening (imports included); one query and 100 queries, k = 10, the median of several goes.
Memory is the largest resident size of the process that searches, disk what lies there then.
"""

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ucdir.gallery.interface import SCHEMA, Engine, GalleryInfo, GalleryWriter, image_id
from ucdir.gallery.locate import gallery_writer, open_engine

K, GOES = 10, 5
COLUMNS = ("images", "engine", "write s", "open s", "1 query ms", "100 queries ms", "disk MB", "memory MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--work", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        what, engine, count = arguments.part
        print(json.dumps(PARTS[what](arguments.work, engine, int(count), arguments.dim)))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, {arguments.dim} dimensions, k = {K}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for count in arguments.counts:
        for engine in ("folder", "milvus"):
            with tempfile.TemporaryDirectory(dir=arguments.work) as work:
                print(line(Path(work), engine, count, arguments.dim), flush=True)


def line(work: Path, engine: str, count: int, dim: int) -> str:
    """One row of the table."""
    written, searched = (part(what, work, engine, count, dim) for what in ("write", "search"))
    disk = sum(file.stat().st_size for file in work.rglob("*") if file.is_file()) / 1e6
    name = {"folder": "folder", "milvus": "Milvus Lite"}[engine]
    cells = [cell(written["write"], 1), cell(searched["open"], 1), *(cell(searched[name], 1e3) for name in ("one", "many"))]
    return f"| {count:,} | {name} | {' | '.join(cells)} | {disk:.0f} | {searched['memory']:.0f} |"


def cell(times: list[float], unit: float) -> str:
    wall, processor = (f"{unit * seconds:.{1 if unit == 1 else 0}f}" for seconds in times)
    return f"{wall} ({processor})"


def part(what: str, work: Path, engine: str, count: int, dim: int) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, __file__, "--part", what, engine, str(count), "--dim", str(dim), "--work", str(work)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def write(work: Path, engine: str, count: int, dim: int) -> dict[str, Any]:
    rows, images = unit_rows(count, dim, seed=0), table(count)
    info = GalleryInfo("0" * 32, "run/encoder", "float32", dim, count, "", "", {"left": "/left"}, ())
    place = place_at(work, engine)
    started = clocks()
    with place.lock():
        place.write(info, images, lambda positions: rows[positions])
    taken = since(started)
    shutil.rmtree(place.journal, ignore_errors=True)
    return {"write": taken}


def search(work: Path, engine: str, count: int, dim: int) -> dict[str, Any]:
    queries = unit_rows(100, dim, seed=1)
    started = clocks()
    opened = engine_at(work, engine)
    taken = since(started)
    one, many = (middle(lambda asked=asked: opened.search(asked, K)) for asked in (queries[:1], queries))
    return {"open": taken, "one": one, "many": many, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def middle(ask: Callable[[], object]) -> list[float]:
    """Wall-clock and processor seconds, medians of some goes after one that warms up."""
    times = []
    for _ in range(GOES + 1):
        started = clocks()
        ask()
        times.append(since(started))
    return [statistics.median(time) for time in zip(*times[1:], strict=True)]


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> list[float]:
    return [now - before for now, before in zip(clocks(), started, strict=True)]


def place_at(work: Path, engine: str) -> GalleryWriter:
    return (
        gallery_writer(work / "gallery")
        if engine == "folder"
        else gallery_writer(Path("gallery"), f"milvus:{work / 'shop.db'}")
    )


def engine_at(work: Path, engine: str) -> Engine:
    return open_engine(work / "gallery") if engine == "folder" else open_engine(Path("gallery"), f"milvus:{work / 'shop.db'}")


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def table(count: int) -> pa.Table:
    """Images as `index` would note them: paths of some 40 characters, each with a hash of its own."""
    paths = [f"/left/{row // 1000:05d}/photograph-{row:09d}.jpg" for row in range(count)]
    columns = {
        "id": [image_id("left", path) for path in paths],
        "path": paths,
        "domain": ["left"] * count,
        "sha256": [f"{row:064x}" for row in range(count)],
        "class": [None] * count,
    }
    return pa.table({name: columns.get(name, [1] * count) for name in SCHEMA.names}, schema=SCHEMA)


PARTS = {"write": write, "search": search}

if __name__ == "__main__":
    main()
