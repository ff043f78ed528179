"""What the benchmarks share: variants in turn, each in a process of its own, their memory, and the limits of the machine."""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], object]


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median (least to most)."""
    middle, least, most = (f"{scale * f(values):,.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} ({least} to {most})"


def times_faster(base: Sequence[float], values: Sequence[float]) -> str:
    """How many times as fast as `base`: the median of the ratios of each round (least to most)."""
    return spread([b / v for b, v in zip(base, values, strict=True)], digits=1)


def limits(rounds: int = 5) -> tuple[float, float]:
    """What the machine can do: GF/s of a float32 matrix product and GB/s of a copy, the best of several."""
    return max(matrix_product() for _ in range(rounds)), max(memory_copy() for _ in range(rounds))


def matrix_product(size: int = 2048) -> float:
    """GF/s of a float32 matrix product."""
    values = np.ones((size, size), np.float32)
    return 2 * size**3 / seconds(lambda: values @ values) / 1e9


def memory_copy(size: int = 2**26) -> float:
    """GB/s read and written by a copy too large for the caches."""
    values, copy = np.ones(size, np.float32), np.ones(size, np.float32)
    return 2 * values.nbytes / seconds(lambda: np.copyto(copy, values)) / 1e9


class Apart:
    """A variant in a process of its own, which works when it is told to and waits otherwise.

    Within one process a variant would have the settings, the memory pools and the idle threads of the others.
    `prepare`, a function or class of the module, is called there once; it gives the work.
    """

    def __init__(self, prepare: Callable[..., Work], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, prepare, arguments))
        self._process.start()
        there.close()
        self._here.recv()

    def __call__(self) -> Any:
        """What one turn of the work gives."""
        return self._ask("work")

    def seconds(self) -> float:
        """Seconds of one turn of the work."""
        return float(self._ask("seconds"))

    def memory(self) -> float:
        """MiB that a turn adds, at its highest, to what was there before it; NaN where unknown."""
        return float(self._ask("memory"))

    def highest(self) -> float:
        """MiB of the process at its highest since it began."""
        return float(self._ask("highest"))

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *error: object) -> None:
        self._here.close()
        self._process.join()

    def _ask(self, what: str) -> Any:
        self._here.send(what)
        return self._here.recv()


def in_turns(variants: Mapping[str, Apart], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round. They take turns, so that a busy moment of the machine hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            found[name].append(variant.seconds())
    return found


def _serve(pipe: Any, prepare: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    work = prepare(*arguments)
    answers: dict[str, Work] = {
        "work": work,
        "seconds": lambda: seconds(work),
        "memory": lambda: _added(work),
        "highest": lambda: _resident("VmHWM"),
    }
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            pipe.send(answers[pipe.recv()]())


def _added(work: Work) -> float:
    before = _resident("VmRSS")
    _forget_highest()
    work()
    return _resident("VmHWM") - before


def _forget_highest() -> None:
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5", encoding="ascii")


def _resident(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), float("nan"))


def machine(*more: str) -> str:
    """One line about the machine, now."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return ", ".join([f"{date.today()}: {name}, {os.cpu_count()} cores{load}; Python {platform.python_version()}", *more])
