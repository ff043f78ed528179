"""`ucdir data`: the command line in real processes, and fetching as part of `prepare`."""

import hashlib
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from ucdir.commands import data
from ucdir.commands.data import fetch_files, info, prepare
from ucdir.datasets.catalogue import DATASETS, DOMAINNET, PACS, VISDA, DatasetSpec, RemoteFile
from ucdir.datasets.prepared_set import load_prepared
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import load_domains
from ucdir.report.terminal.datasets import info_document, info_lines, overview_lines, prepared_document, prepared_lines


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ucdir", "data", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (seed % 256, seed // 256, 0)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """PACS.zip with two images of each class."""
    path = tmp_path / "PACS.zip"
    names = [f"PACS/{domain.name}/{name}/{n}.png" for domain in PACS.domains for name in PACS.classes for n in range(2)]
    with zipfile.ZipFile(path, "w") as packing:
        for seed, name in enumerate(names):
            packing.writestr(name, picture(seed))
    return path


def test_prepare_from_an_archive(archive: Path, tmp_path: Path) -> None:
    finished = run("prepare", "pacs", "--source", archive.name, folder=tmp_path)
    assert finished.returncode == 1
    assert "photo: class 'dog': found 2, expected 189" in finished.stderr
    assert "--allow-differences" in finished.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["PACS.zip"]
    finished = run("prepare", "pacs", "--source", archive.name, "--allow-differences", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "pacs/photo.csv: 14 images of 7 classes, unpacked from PACS.zip" in finished.stdout
    assert "Wrote pacs: PACS, 6 pairs, 32 differences noted." in finished.stdout
    assert "Next: ucdir train pacs/photo.csv pacs/art_painting.csv    or    ucdir benchmark pacs" in finished.stdout
    domains = load_domains([str(manifest) for _, manifest in load_prepared(tmp_path / "pacs").domains])
    assert [len(domain) for domain in domains] == [14, 14, 14, 14]


def test_info_as_json(tmp_path: Path) -> None:
    finished = run("info", "office-home", "--json", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["domains"][3]["images"] == 4357


@pytest.mark.parametrize("spec", DATASETS, ids=lambda spec: spec.name)
def test_info_says_where_what_and_how_many(spec: DatasetSpec) -> None:
    (found,) = info(spec.name)
    text = "\n".join(info_lines(found))
    for word in (spec.site, spec.licence, *(file.url or file.name for file in spec.files)):
        assert word in text
    for domain in spec.domains:
        assert f"{domain.name}: {'total not known' if domain.images is None else f'{domain.images:,}'}" in text
    assert text.splitlines()[-1].startswith(f"Next: ucdir data prepare {spec.name} --")
    assert json.loads(json.dumps(info_document(spec)))["name"] == spec.name


def test_info_of_all() -> None:
    lines = list(overview_lines(info()))
    assert [line.split()[0] for line in lines] == [*(spec.name for spec in DATASETS), "Next:"]


def test_the_report_as_a_document(archive: Path, tmp_path: Path) -> None:
    result = prepare("pacs", archive, tmp_path / "out", allow_differences=True)
    document = json.loads(json.dumps(prepared_document(result)))
    assert document["domains"][0] == {
        "name": "photo",
        "manifest": str(tmp_path / "out" / "photo.csv"),
        "images": 14,
        "classes": 7,
        "place": str(archive),
        "unpacked": True,
    }
    assert len(document["differences"]) == 32
    assert "and 12 more differences; dataset.json lists all" in list(prepared_lines(result))


@pytest.mark.parametrize("name", ["office-home", "pacs", "office31"])
def test_what_lies_behind_a_form_is_not_fetched(name: str, tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=r"behind a form, so --download cannot fetch it\. Download .* by hand from https://"):
        prepare(name, out=tmp_path / "out", download=True)
    assert not (tmp_path / "out").exists()


def test_a_source_is_needed() -> None:
    with pytest.raises(UsageError, match=r"--source is missing\. .* files of PACS; ucdir data info pacs shows where"):
        prepare("pacs")
    with pytest.raises(UsageError, match=r"--source is missing\..* or --download to fetch them"):
        prepare("domainnet")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address on this machine and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=lambda: listening.serve_forever(poll_interval=0.01))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", folder
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_fetched_and_prepared(server: tuple[str, Path], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the second fetch, and the file is there already."""
    address, folder = server
    content = archive.read_bytes()
    (folder / "PACS.zip").write_bytes(content)
    remote = RemoteFile(
        "PACS.zip", f"{address}/PACS.zip", len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    monkeypatch.setattr(data, "dataset", lambda name, classes: replace(PACS, files=(remote,)))
    said: list[str] = []
    result = prepare("pacs", out=tmp_path / "out", download=True, allow_differences=True, log=said.append)
    assert [domain.images for domain in result.domains] == [14] * 4
    assert said[0].startswith("Fetching 1 file, 0.0 GB, into ")
    assert said[1] == f"{tmp_path}/out/archives/PACS.zip: SHA-256 {hashlib.sha256(content).hexdigest()}, MD5 as expected"
    said.clear()
    fetch_files(replace(PACS, files=(replace(remote, size=None, md5=None),)), tmp_path / "out" / "archives", log=said.append)
    assert len(said) == 1
    assert said[0].endswith(", no published checksum to compare it with")


def test_what_arrived_incomplete_is_deleted_and_fetched_again(
    server: tuple[str, Path], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of the file; what the error says to do works."""
    address, folder = server
    (folder / "PACS.zip").write_bytes(archive.read_bytes()[:-100])
    spec = replace(PACS, files=(RemoteFile("PACS.zip", f"{address}/PACS.zip"),))
    monkeypatch.setattr(data, "dataset", lambda name, classes: spec)
    fetched = tmp_path / "out" / "archives" / "PACS.zip"
    with pytest.raises(UcdirError, match=rf"cannot be read: .* Delete '{fetched}', then run again with --download"):
        prepare("pacs", out=tmp_path / "out", download=True, allow_differences=True)
    (folder / "PACS.zip").write_bytes(archive.read_bytes())
    fetched.unlink()
    result = prepare("pacs", out=tmp_path / "out", download=True, allow_differences=True)
    assert [domain.images for domain in result.domains] == [14] * 4


def test_on_a_disk_with_room_for_the_rest_alone(server: tuple[str, Path], small_disk: Path) -> None:
    """Of 64 kB that the disk has, 48 are filled by what has arrived: the last 8 kB still fit."""
    address, folder = server
    content = bytes(range(256)) * 224
    (folder / "PACS.zip").write_bytes(content)
    (small_disk / "PACS.zip.part").write_bytes(content[:49_152])
    remote = RemoteFile("PACS.zip", f"{address}/PACS.zip", len(content))
    said: list[str] = []
    fetch_files(replace(PACS, files=(remote,)), small_disk, log=said.append)
    assert (small_disk / "PACS.zip").read_bytes() == content
    assert said[0].startswith("Fetching 1 file, 0.0 GB (0.0 GB have arrived), into ")


def test_on_a_disk_without_room_for_the_rest(small_disk: Path) -> None:
    (small_disk / "PACS.zip.part").write_bytes(b"0" * 49_152)
    remote = RemoteFile("PACS.zip", "http://127.0.0.1/never-asked", 2_000_049_152)
    with pytest.raises(UcdirError, match=r"fetching needs 2\.0 GB, but the disk of '.*' has 0\.0 GB left"):
        fetch_files(replace(PACS, files=(remote,)), small_disk)
    assert (small_disk / "PACS.zip.part").stat().st_size == 49_152


def test_the_addresses_are_those_of_one_server() -> None:
    for spec in (DOMAINNET, VISDA):
        assert all(file.url is not None and file.url.startswith("http://csr.bu.edu/ftp/visda") for file in spec.files)
        assert all(file.url is not None and file.url.endswith(f"/{file.name}") for file in spec.files)
        assert all(file.md5 is None or len(file.md5) == 32 for file in spec.files)
    assert sum(file.size or 0 for file in DOMAINNET.files) > 18e9


def test_into_the_folder_where_one_is(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = prepare("pacs", archive, Path(), allow_differences=True)
    assert result.folder == tmp_path / "here"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    assert len(load_prepared(Path()).domains) == 4
