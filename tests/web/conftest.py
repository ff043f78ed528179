"""A collection, the service over it, and a browser."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ucdir.drawing.collection import draw_collections

TOKEN = "correct horse battery staple"
PATIENCE = 60.0  # s until the service must answer


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Domains `photo` and `drawing` with class folders; `photo/lost` holds one image alone."""
    root = tmp_path_factory.mktemp("page") / "collection"
    draw_collections(root, images_per_class=6)
    first = min((root / "photo").rglob("*.jpg"))
    (root / "photo" / "lost").mkdir()
    shutil.copy(first, root / "photo" / "lost" / "0001.jpg")
    return root


@pytest.fixture(scope="session")
def service_url(collection: Path) -> Iterator[str]:
    """Address of a service with at least two galleries over `collection`, the first with both domains; ends with a slash."""
    with service(collection) as url:
        yield url


@pytest.fixture(scope="session")
def locked_url(collection: Path) -> Iterator[str]:
    """The same behind `TOKEN`."""
    with service(collection, "--token", TOKEN) as url:
        yield url


@contextmanager
def service(root: Path, *more: str) -> Iterator[str]:
    port = free_port()
    stub = Path(__file__).with_name("stub_service.py")
    process = subprocess.Popen([sys.executable, str(stub), str(root), "--port", str(port), *more])
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(f"{url}health", process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, f"the service ended with code {process.returncode}"
        try:
            with urllib.request.urlopen(url):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer within {PATIENCE} s")
