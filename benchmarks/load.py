"""How many requests `ucdir serve` answers, how fast, and whether it drops any.

    python benchmarks/load.py --clients 64 --seconds 60

Draws a collection, indexes it with an untrained encoder, starts a real `ucdir serve` on loopback and asks it from CLIENTS
connections at once: uploads, "more like this" and thumbnails. A search that is told to come back later does, and counts from
its first try. Prints Markdown; exits with 1 if a request was dropped or answered wrongly.
"""

import argparse
import http.client
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

MIX = (("upload", 4), ("more like this", 3), ("thumbnail", 3))
END = b"\r\n--x--\r\n"


@dataclass(frozen=True)
class Request:
    """One request as a client saw it.

    seconds   from the first try to the whole answer
    retries   503s before it
    error     what went wrong; "" = nothing
    """

    kind: str
    seconds: float
    retries: int
    error: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--images", type=int, default=400, help="images of the gallery, about")
    parser.add_argument("--queue", type=int, default=64, help="of ucdir serve")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures, gallery = draw(Path(folder), arguments.images)
        with serving(gallery, arguments.queue, Path(folder) / "log.txt") as (process, port):
            ids = all_ids(port, pictures[0])
            warm_up(port, pictures, ids)
            before = resident(process.pid)
            asked, seconds = ask(port, pictures, ids, arguments.clients, arguments.seconds)
            after = resident(process.pid)
    print(report(asked, seconds, arguments, len(pictures), before, after))
    sys.exit(1 if any(each.error for each in asked) else 0)


def draw(folder: Path, images: int) -> tuple[list[bytes], Path]:
    """Contents of the drawn images, and their gallery."""
    import torch

    from ucdir.commands.index import index
    from ucdir.drawing.collection import draw_collections
    from ucdir.model.encoder import build_encoder

    torch.manual_seed(0)
    drawn = draw_collections(folder / "drawn", max(1, images // 20))
    build_encoder("torchvision/mobilenet_v2", "none", 96, dim=128).save(folder / "encoder")
    index(folder / "encoder", [str(drawn.photo), str(drawn.drawing)], folder / "gallery", device="cpu")
    return [path.read_bytes() for path in sorted(folder.glob("drawn/*/*/*"))], folder / "gallery"


@contextmanager
def serving(gallery: Path, queue: int, log: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    command = [sys.executable, "-m", "ucdir", "serve", str(gallery), "--port", "0", "--queue", str(queue), "--device", "cpu"]
    with log.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", "".join(process.stdout.readline() for _ in range(2)))
        if found is None:
            sys.exit(log.read_text())
        yield process, int(found[1])
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=60) != 0:
            sys.exit(f"ucdir serve ended with {process.returncode}")


def all_ids(port: int, picture: bytes) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    _, content, _ = request(connection, "POST", "/search", form("image", picture, "k", "200"))
    connection.close()
    return [hit["id"] for hit in json.loads(content)["hits"]]


def form(name: str, value: bytes, *more: str) -> bytes:
    """A multipart body: a file or a text, then texts."""
    file = b'; filename="query.png"' if name == "image" else b""
    body = b'--x\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file + b"\r\n\r\n" + value
    for key, text in zip(more[::2], more[1::2], strict=True):
        body += f'\r\n--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}'.encode()
    return body + END


def request(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> tuple[int, bytes, str]:
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if body is not None else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers.get("Retry-After", "1")


def warm_up(port: int, pictures: list[bytes], ids: list[str]) -> None:
    """Reach the state of a service that has been used: every thread has worked, every buffer was needed."""
    ask(port, pictures, ids, 64, 5)


def ask(port: int, pictures: list[bytes], ids: list[str], clients: int, seconds: float) -> tuple[list[Request], float]:
    """All requests of all clients, and how long it took."""
    started = time.perf_counter()
    until = started + seconds
    start = threading.Barrier(clients)

    def one_client(number: int) -> list[Request]:
        chance, asked = random.Random(number), []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        start.wait()
        while time.perf_counter() < until:
            asked.append(ask_once(connection, chance, pictures, ids))
        connection.close()
        return asked

    with ThreadPoolExecutor(clients) as pool:
        lists = list(pool.map(one_client, range(clients)))
    return [each for one in lists for each in one], time.perf_counter() - started


def ask_once(connection: http.client.HTTPConnection, chance: random.Random, pictures: list[bytes], ids: list[str]) -> Request:
    (kind,) = chance.choices([name for name, _ in MIX], [weight for _, weight in MIX])
    method, path, body, is_right = {
        "upload": ("POST", "/search", form("image", chance.choice(pictures)), has_hits),
        "more like this": ("POST", "/search", form("image_id", chance.choice(ids).encode()), has_hits),
        "thumbnail": ("GET", f"/images/{chance.choice(ids)}/thumbnail?side={chance.choice((160, 320))}", None, is_jpeg),
    }[kind]
    started, retries, error = time.perf_counter(), 0, ""
    try:
        status, content, wait = request(connection, method, path, body)
        while status == 503:
            retries += 1
            time.sleep(float(wait))
            status, content, wait = request(connection, method, path, body)
        error = "" if is_right(status, content) else f"{status} {content[:200]!r}"
    except (OSError, http.client.HTTPException) as broken:
        error = repr(broken)
        connection.close()
    return Request(kind, time.perf_counter() - started, retries, error)


def has_hits(status: int, content: bytes) -> bool:
    return status == 200 and len(json.loads(content)["hits"]) == 24


def is_jpeg(status: int, content: bytes) -> bool:
    return status == 200 and content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")


def resident(process: int) -> int:
    """Bytes of memory in use."""
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1])


def report(asked: list[Request], seconds: float, arguments: argparse.Namespace, images: int, before: int, after: int) -> str:
    lines = [
        f"{arguments.clients} clients, {seconds:.0f} s, gallery of {images} images, {machine()}",
        "",
        "| request | answered | /s | p50 ms | p95 ms | p99 ms | errors | 503s, asked again |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds: list[tuple[str, Callable[[Request], bool]]] = [(name, lambda each, name=name: each.kind == name) for name, _ in MIX]
    for name, is_it in [*kinds, ("all", lambda each: True)]:
        lines.append(line(name, [each for each in asked if is_it(each)], seconds))
    lines += ["", f"memory of the service: {before / 1e6:.0f} MB at the start, {after / 1e6:.0f} MB at the end"]
    return "\n".join([*lines, *sorted({each.error for each in asked if each.error})[:10]])


def line(name: str, asked: list[Request], seconds: float) -> str:
    good = sorted(each.seconds for each in asked if not each.error)
    figures = " | ".join(f"{1000 * good[min(len(good) - 1, int(share * len(good)))]:.0f}" for share in (0.5, 0.95, 0.99))
    errors, retries = sum(bool(each.error) for each in asked), sum(each.retries for each in asked)
    return f"| {name} | {len(good)} | {len(good) / seconds:.1f} | {figures} | {errors} | {retries} |"


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    cores = len(os.sched_getaffinity(0))
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{cores} cores ({names[0] if names else platform.machine()}), load {os.getloadavg()[0]:.1f}, {date}"


if __name__ == "__main__":
    main()
