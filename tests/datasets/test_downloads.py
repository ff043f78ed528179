"""Fetching from a real server on this machine: going on, cut off, wrong length, refused, two at once."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ucdir.datasets import downloads as module
from ucdir.datasets.downloads import download
from ucdir.errors import UcdirError
from ucdir.storage import locked

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Behaviour:
    """How the server answers. `cuts`: bytes after which an answer ends, one for each request, then whole answers."""

    content: bytes = CONTENT
    ranges: bool = True
    etag: str = '"one"'
    length: bool = True
    kind: str = "application/zip"
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        how, wanted = self.behaviour, self.headers.get("Range")
        how.asked.append(wanted)
        status = how.statuses.pop(0) if how.statuses else 200
        if status != 200:
            self.send_error(status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and how.ranges else 0
        if self.headers.get("If-Range", how.etag) != how.etag:
            start = 0
        total = len(how.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if how.etag:
            self.send_header("ETag", how.etag)
        if how.kind:
            self.send_header("Content-Type", how.kind)
        if how.length:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        self.wfile.write(how.content[start:][: how.cuts.pop(0) if how.cuts else total])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Say nothing."""


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def url(behaviour: Behaviour) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Handler,), {"behaviour": behaviour}))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/set.zip"
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_whole_file(url: str, tmp_path: Path) -> None:
    got = download(url, tmp_path / "new" / "set.zip", len(CONTENT), MD5)
    assert got.path.read_bytes() == CONTENT
    assert (got.sha256, got.checked) == (SHA256, "MD5")
    assert names(tmp_path / "new") == ["set.zip", "set.zip.sha256"]
    assert (tmp_path / "new" / "set.zip.sha256").read_text(encoding="utf-8") == f"{SHA256}  set.zip\n"


def test_nothing_is_fetched_twice(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    first = download(url, tmp_path / "set.zip")
    assert (first.checked, first.sha256) == ("", SHA256)
    assert download(url, tmp_path / "set.zip", len(CONTENT)).checked == "size"
    (tmp_path / "set.zip.sha256").write_text("damaged", encoding="utf-8")
    assert download(url, tmp_path / "set.zip").sha256 == SHA256
    assert len(behaviour.asked) == 1


def test_cut_off_midway_it_goes_on(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.cuts = [100_000, 50_000]
    assert download(url, tmp_path / "set.zip", md5=MD5, pause=0).path.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_run_goes_on(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.cuts = [100_000, 0, 0, 0]
    with pytest.raises(UcdirError, match=r"ended after 100,000 of 256,000 bytes.*100,000 bytes are kept; run the same command"):
        download(url, tmp_path / "set.zip", pause=0)
    assert names(tmp_path) == ["set.zip.part", "set.zip.part.tag"]
    assert download(url, tmp_path / "set.zip", pause=0).sha256 == SHA256
    assert behaviour.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_begins_anew(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.ranges, behaviour.cuts = False, [100_000]
    assert download(url, tmp_path / "set.zip", md5=MD5, pause=0).sha256 == SHA256
    assert behaviour.asked == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.cuts = [100_000, 0, 0, 0]
    with pytest.raises(UcdirError):
        download(url, tmp_path / "set.zip", pause=0)
    behaviour.content, behaviour.etag = CONTENT[::-1], '"two"'
    assert download(url, tmp_path / "set.zip", pause=0).path.read_bytes() == CONTENT[::-1]


def test_killed_when_it_began_anew(url: str, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the new tag was kept: what had arrived of the old file is not continued with bytes of the new one."""
    behaviour.cuts = [100_000, 0, 0, 0]
    with pytest.raises(UcdirError):
        download(url, tmp_path / "set.zip", pause=0)
    behaviour.content, behaviour.etag = CONTENT[::-1], '"two"'
    with monkeypatch.context() as patched:
        patched.setattr(module, "_receive", lambda answer, part, mode, advance: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            download(url, tmp_path / "set.zip", pause=0)
    assert (tmp_path / "set.zip.part.tag").read_text(encoding="latin-1") == '"two"'
    assert download(url, tmp_path / "set.zip", pause=0).path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_part_that_is_complete(url: str, tmp_path: Path, size: int | None) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    assert download(url, tmp_path / "set.zip", size, MD5).sha256 == SHA256


def test_a_part_that_is_longer_than_the_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT * 2)
    assert download(url, tmp_path / "set.zip", pause=0).sha256 == SHA256


def test_another_length_is_refused_before_it_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=r"has 256,000 bytes, expected 256,001: it is a different file now"):
        download(url, tmp_path / "set.zip", len(CONTENT) + 1)
    assert names(tmp_path) == []


def test_another_length_that_the_server_does_not_tell(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.length = False
    with pytest.raises(UcdirError, match=r"arrived with 256,000 bytes, expected 256,001\. It was deleted"):
        download(url, tmp_path / "set.zip", len(CONTENT) + 1)
    assert names(tmp_path) == []


def test_another_content_is_dropped(url: str, tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=rf"arrived with MD5 {MD5}, expected {'0' * 32}\. It was deleted"):
        download(url, tmp_path / "set.zip", md5="0" * 32)
    assert names(tmp_path) == []


PAGE = b"<!DOCTYPE html><title>Log in</title>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream", ""])
def test_a_web_page_in_place_of_an_archive(url: str, behaviour: Behaviour, tmp_path: Path, kind: str) -> None:
    """Nothing is known of the file. The page is told by what the server says of it, or by how it begins."""
    behaviour.content, behaviour.kind = PAGE if "html" not in kind else b"<!-- later --><title>Log in</title>", kind
    with pytest.raises(UcdirError, match=r"answered with a web page, perhaps a login, .* by hand to '.*set\.zip'\.$"):
        download(url, tmp_path / "set.zip")
    assert names(tmp_path) == []
    behaviour.content, behaviour.kind = CONTENT, "application/zip"
    assert download(url, tmp_path / "set.zip").sha256 == SHA256


def test_a_web_page_takes_nothing_of_what_had_arrived(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    """The login page of a network, halfway."""
    behaviour.cuts = [100_000, 0, 0, 0]
    with pytest.raises(UcdirError):
        download(url, tmp_path / "set.zip", pause=0)
    behaviour.content, behaviour.kind, behaviour.etag = PAGE * 9_000, "text/html", '"page"'
    with pytest.raises(UcdirError, match=r"answered with a web page.* 100,000 bytes that arrived before are kept\."):
        download(url, tmp_path / "set.zip", pause=0)
    behaviour.content, behaviour.kind, behaviour.etag = CONTENT, "application/zip", '"one"'
    assert download(url, tmp_path / "set.zip", pause=0).sha256 == SHA256
    assert behaviour.asked[-1] == "bytes=100000-"


def test_a_web_page_that_is_no_archive_by_name(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.content, behaviour.kind = PAGE, "text/html"
    assert download(url, tmp_path / "page.html").path.read_bytes() == PAGE


def test_a_file_there_of_another_length_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"half")
    with pytest.raises(UcdirError, match=r"has 4 bytes, expected 256,000\. Delete it"):
        download(url, tmp_path / "set.zip", len(CONTENT))


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal(url: str, behaviour: Behaviour, tmp_path: Path, status: int) -> None:
    behaviour.statuses = [status]
    with pytest.raises(UcdirError, match=rf"cannot be downloaded: the server answered {status} .* by hand to '.*set\.zip'"):
        download(url, tmp_path / "set.zip", pause=0)
    assert len(behaviour.asked) == 1


def test_a_busy_server_is_asked_again(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    behaviour.statuses = [503, 500]
    assert download(url, tmp_path / "set.zip", pause=0).sha256 == SHA256


def test_without_a_network(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/set.zip"
        with pytest.raises(UcdirError, match=r"could not download http.*: Connection refused\. Check the network"):
            download(address, tmp_path / "set.zip", pause=0)
    assert names(tmp_path) == []


def test_a_server_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip"
        with pytest.raises(UcdirError, match=r"could not download .*timed out"):
            download(address, tmp_path / "set.zip", pause=0)


def test_two_at_once(url: str, behaviour: Behaviour, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "set.zip", "being downloaded"),
        pytest.raises(UcdirError, match="is being downloaded by another ucdir data prepare"),
    ):
        download(url, tmp_path / "set.zip")
    assert behaviour.asked == []


def test_a_full_disk(url: str, small_disk: Path) -> None:
    with pytest.raises(UcdirError, match="the disk is full"):
        download(url, small_disk / "set.zip")
