"""Drawn galleries of an untrained encoder, and real `ucdir serve` processes over them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

EXTRAS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
STARTING = "from ucdir.cli import main; main()"


@dataclass(frozen=True)
class Running:
    """A `ucdir serve` of its own: its process, where it answers, and the file its log goes to."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = re.fullmatch(r"http://(.+):(\d+)", self.url).groups()
        return host, int(port)

    def memory(self) -> int:
        """Bytes in use now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=600)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder for pictures of 48 pixels."""
    import torch

    from ucdir.model.encoder import build_encoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    build_encoder("torchvision/mobilenet_v2", "none", 48).save(folder)
    return folder


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo/KIND/0001.jpg ... and drawing/KIND/0001.png ..., forty pictures in all."""
    from ucdir.drawing.collection import draw_collections

    folder = tmp_path_factory.mktemp("drawn") / "drawn"
    draw_collections(folder, images_per_class=2)
    return folder


@pytest.fixture(scope="session")
def make_gallery(encoder_folder: Path) -> Callable[..., Path]:
    """make_gallery(out, *sources): index the sources into the folder `out`, or bring it up to date."""
    from ucdir.commands.index import index

    def make(out: Path, *sources: object) -> Path:
        index(encoder_folder, [str(source) for source in sources], out, device="cpu", precision="float32")
        return out

    return make


@pytest.fixture(scope="session")
def galleries(drawn: Path, make_gallery: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two galleries: `everything` with the domains photo and drawing, `photos` with one. Not to be changed."""
    folder = tmp_path_factory.mktemp("galleries")
    both = make_gallery(folder / "everything", drawn / "photo", drawn / "drawing")
    return both, make_gallery(folder / "photos", drawn / "photo")


@pytest.fixture
def own_pictures(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn pictures, for tests that change them."""
    return Path(shutil.copytree(drawn, tmp_path / "pictures"))


@pytest.fixture
def own_gallery(own_pictures: Path, make_gallery: Callable[..., Path], tmp_path: Path) -> Path:
    """A gallery of them."""
    return make_gallery(tmp_path / "own", own_pictures / "photo", own_pictures / "drawing")


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """launch(*arguments, starting=PROGRAM, **environment): a `ucdir serve` that answers, on a free port."""
    for name in EXTRAS:
        pytest.importorskip(name, reason="ucdir serve needs the extra 'serve'")
    started: list[Running] = []

    def begin(*arguments: object, starting: str = STARTING, **environment: str) -> Running:
        command = [sys.executable, "-c", starting, "serve", *map(str, arguments), "--port", "0", "--device", "cpu"]
        log = tmp_path_factory.mktemp("log") / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **environment}
            )
        found = re.search(r"Open (http://\S+)/ in a browser", until_open(process))
        assert found, log.read_text()
        running = Running(process, found[1], log)
        started.append(running)
        return running

    yield begin
    for running in started:
        running.process.kill()
        running.process.wait()
        running.process.stdout.close()


def until_open(process: subprocess.Popen[str]) -> str:
    """What it prints, up to the line with the address or to its end."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Open "):
            break
    return "".join(lines)


@pytest.fixture(scope="session")
def service(launch: Callable[..., Running], galleries: tuple[Path, Path]) -> Running:
    """One service for all tests that leave it as it is: the galleries `everything` and `photos`."""
    return launch(*galleries)


@pytest.fixture(scope="session")
def service_url(service: Running) -> str:
    """Where it answers, without a slash at the end."""
    return service.url


@pytest.fixture
def served(launch: Callable[..., Running], own_gallery: Path) -> Iterator[Running]:
    """A service over `own_gallery`, for tests that change or end it."""
    running = launch(own_gallery)
    yield running
    running.process.kill()
    running.process.wait()
