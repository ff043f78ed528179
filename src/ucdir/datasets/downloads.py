"""Downloading a large file over HTTP: it resumes, is verified, and appears whole or not at all."""

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ucdir import __version__
from ucdir.datasets.archives import is_archive, is_web_page
from ucdir.errors import UcdirError
from ucdir.progress import Progress, no_progress
from ucdir.storage import clear_write_errors, locked, write_text

READ_BYTES = 1 << 20
SECONDS = 60.0  # without a byte, then the connection counts as lost
ATTEMPTS = 4  # in a row that bring nothing new
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better a moment later
PAGES = ("text/html", "application/xhtml+xml")  # content types of an answer that is not an archive

Answer = http.client.HTTPResponse


@dataclass(frozen=True)
class Downloaded:
    """A fetched file; `checked` is what it was compared with: "MD5", "size", or "" where nothing is known of it."""

    path: Path
    sha256: str
    checked: str


def download(
    url: str, path: Path, size: int | None = None, md5: str | None = None, progress: Progress = no_progress, pause: float = 1.0
) -> Downloaded:
    """Fetch `url` into `path`. A file that is already there is taken as it is, if its size is right.

    size, md5   what is known of the file: bytes, and 32 hexadecimal digits
    pause       seconds between two attempts
    returns     the file and its SHA-256, which is also kept in PATH.sha256 (`sha256sum -c` reads it)
    raises      UcdirError; what has arrived stays in PATH.part, and the same call resumes from there

    The server's ETag or date is kept in PATH.part.tag: a file that changed in the meantime is fetched from its start.
    A web page that comes in place of an archive is refused, also where neither size nor MD5 is known.
    """
    with locked(path, "being downloaded by another ucdir data prepare"):
        if not path.exists():
            return _fetch(_Fetch(url, path, size, md5), progress, pause)
        found = path.stat().st_size
        if size is not None and found != size:
            raise UcdirError(f"'{path}' has {found:,} bytes, expected {size:,}. Delete it and run again.")
        return Downloaded(path, _known_sha256(path), "" if size is None else "size")


def arrived_of(path: Path) -> int:
    """Bytes of a file that an earlier call has fetched and that the next one need not fetch again."""
    part = _part_of(path)
    return part.stat().st_size if part.exists() else 0


@dataclass(frozen=True)
class _Fetch:
    url: str
    path: Path
    size: int | None
    md5: str | None

    @property
    def part(self) -> Path:
        return _part_of(self.path)

    @property
    def tag(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.tag")

    @property
    def arrived(self) -> int:
        """Bytes in the part."""
        return arrived_of(self.path)

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


class _ConnectionLostError(Exception):
    """The network failed; trying again may help."""


def _fetch(fetch: _Fetch, progress: Progress, pause: float) -> Downloaded:
    failures = 0
    while True:
        before = fetch.arrived
        try:
            if _fetch_once(fetch, progress):
                break
        except _ConnectionLostError as error:
            failures = 1 if fetch.arrived > before else failures + 1
            if failures >= ATTEMPTS:
                raise _not_reached(fetch, error) from error
            time.sleep(pause)
    sha256 = _checked_sha256(fetch)
    with clear_write_errors(fetch.path):
        fetch.part.replace(fetch.path)
        fetch.tag.unlink(missing_ok=True)
    _keep_sha256(fetch.path, sha256)
    return Downloaded(fetch.path, sha256, "MD5" if fetch.md5 else "size" if fetch.size else "")


def _fetch_once(fetch: _Fetch, progress: Progress) -> bool:
    """Fetch what is missing. False: the part already on disk belongs to another file and was deleted; start over."""
    start = fetch.arrived
    if start and start == fetch.size:
        return True
    try:
        with _network():
            answer: Answer = urllib.request.urlopen(_request(fetch, start), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            return _after_refusal(fetch, error, start)
    with answer:
        if is_archive(fetch.path.name) and answer.headers.get_content_type() in PAGES:
            raise _web_page(fetch)
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        total = _total(answer, start, fetch)
        if not goes_on:
            fetch.part.unlink(missing_ok=True)  # before the tag, so that old bytes never have a new tag
        _remember_tag(fetch, answer)
        with progress(f"downloading {fetch.path.name}", total or 0) as advance:
            advance(start if goes_on else 0)
            _receive(answer, fetch.part, "ab" if goes_on else "wb", advance)
    if total is not None and fetch.arrived < total:
        raise _ConnectionLostError(f"the connection ended after {fetch.arrived:,} of {total:,} bytes")
    return True


def _request(fetch: _Fetch, start: int) -> urllib.request.Request:
    headers = {"User-Agent": f"ucdir/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if fetch.tag.exists():
            headers["If-Range"] = fetch.tag.read_text(encoding="latin-1")
    return urllib.request.Request(fetch.url, headers=headers)


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _ConnectionLostError(str(getattr(reason, "strerror", None) or reason or type(error).__name__)) from error


def _after_refusal(fetch: _Fetch, error: urllib.error.HTTPError, start: int) -> bool:
    """Is the file complete after all (True), or is it to be fetched from its start (False)? Else the sentence."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return True
        fetch.forget()
        return False
    said = f"{error.code} {error.reason}"
    if error.code in BUSY:
        raise _ConnectionLostError(f"the server answered {said}")
    raise UcdirError(f"{fetch.url} cannot be downloaded: the server answered {said}. Download it by hand to '{fetch.path}'.")


def _total(answer: Answer, start: int, fetch: _Fetch) -> int | None:
    """Bytes of the whole file as the server says, None if it does not; refuses another file than the one known."""
    if answer.status == http.client.PARTIAL_CONTENT:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != start:
            raise UcdirError(f"{fetch.url} did not send the requested bytes from {start:,} on. Download it by hand.")
        total = None if said[2] == "*" else int(said[2])
    else:
        length = answer.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    if total is not None and fetch.size is not None and total != fetch.size:
        raise UcdirError(
            f"{fetch.url} has {total:,} bytes, expected {fetch.size:,}: it is a different file now. "
            "Check the site of the data set, and download it by hand if you trust it."
        )
    return total


def _remember_tag(fetch: _Fetch, answer: Answer) -> None:
    """Keep what tells this version of the file from others; a weak ETag does not."""
    etag = answer.headers.get("ETag", "")
    tag = answer.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
    if tag:
        with clear_write_errors(fetch.tag):
            fetch.tag.write_text(tag, encoding="latin-1")
    else:
        fetch.tag.unlink(missing_ok=True)


def _receive(answer: Answer, part: Path, mode: str, advance: Callable[[int], None]) -> None:
    with clear_write_errors(part), part.open(mode) as writing:
        while chunk := _read(answer):
            writing.write(chunk)
            advance(len(chunk))


def _read(answer: Answer) -> bytes:
    with _network():
        return answer.read1(READ_BYTES)


def _not_reached(fetch: _Fetch, error: _ConnectionLostError) -> UcdirError:
    kept = f" {fetch.arrived:,} bytes are kept; run the same command again to continue." if fetch.arrived else ""
    return UcdirError(
        f"could not download {fetch.url}: {error}. Check the network and run again, or save it as '{fetch.path}' "
        f"yourself.{kept}"
    )


def _web_page(fetch: _Fetch) -> UcdirError:
    kept = f" {fetch.arrived:,} bytes that arrived before are kept." if fetch.arrived else ""
    return UcdirError(
        f"{fetch.url} answered with a web page, perhaps a login, where an archive was expected. "
        f"Look at it in a browser, then run again or download it by hand to '{fetch.path}'.{kept}"
    )


def _checked_sha256(fetch: _Fetch) -> str:
    """SHA-256 of what arrived; a part that is not the known file is dropped and refused."""
    if is_archive(fetch.path.name) and is_web_page(fetch.part):
        fetch.forget()
        raise _web_page(fetch)
    sha256, md5 = _digests(fetch.part)
    if fetch.size is not None and fetch.arrived != fetch.size:
        found, expected = f"{fetch.arrived:,} bytes", f"{fetch.size:,}"
    elif fetch.md5 is not None and md5 != fetch.md5:
        found, expected = f"MD5 {md5}", fetch.md5
    else:
        return sha256
    fetch.forget()
    raise UcdirError(f"{fetch.url} arrived with {found}, expected {expected}. It was deleted; run again to fetch it again.")


def _digests(file: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file, read once. MD5 is what the known sums are in; it tells damage, not malice."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with clear_write_errors(file), file.open("rb") as opened:
        while chunk := opened.read(READ_BYTES):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def _known_sha256(path: Path) -> str:
    """The SHA-256 stored next to the file, computed if it is missing, damaged or older than the file."""
    kept = _sum_file(path)
    if kept.exists() and kept.stat().st_mtime >= path.stat().st_mtime:
        written = re.match(r"[0-9a-f]{64}(?= )", kept.read_text(encoding="utf-8", errors="replace"))
        if written is not None:
            return written[0]
    sha256, _ = _digests(path)
    _keep_sha256(path, sha256)
    return sha256


def _keep_sha256(path: Path, sha256: str) -> None:
    write_text(_sum_file(path), f"{sha256}  {path.name}\n")


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
