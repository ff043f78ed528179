"""Archives as they should not be: damaged, cut off, leading elsewhere, full of links, larger than the disk."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from ucdir.datasets import archives
from ucdir.datasets.archives import Archive, archive_stem, is_archive, list_members, require_space, unpack
from ucdir.errors import UcdirError

FILES = {"set/a/one.png": b"1" * 2000, "set/b/two.png": os.urandom(3000), "set/read.txt": b"hello"}
KINDS = ["set.zip", "set.tar", "set.tar.gz", "set.tgz"]


def packed(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def nothing(count: int) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("name", KINDS)
def test_what_is_in_it_and_unpacking_a_part(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path / name)
    members = list_members(Archive(archive))
    assert {member.parts: member.size for member in members} == {tuple(n.split("/")): len(c) for n, c in FILES.items()}
    assert is_archive(name)
    assert archive_stem(name) == "set"
    told: list[int] = []
    targets = {name: tmp_path / "out" / name.rsplit("/", 1)[1] for name in FILES if name.endswith(".png")}
    unpack(Archive(archive), targets, told.append)
    assert told == [1, 1]
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {
        "one.png": FILES["set/a/one.png"],
        "two.png": FILES["set/b/two.png"],
    }


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_an_archive_that_is_cut_off(tmp_path: Path, name: str, share: float) -> None:
    archive = packed(tmp_path / name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UcdirError, match=rf"archive '.*{name}' cannot be read: .+\. Delete '{archive}', then run again with"):
        unpack(Archive(archive), {member.name: tmp_path / "x" for member in list_members(Archive(archive))}, nothing)


def test_a_tar_that_lacks_its_end(tmp_path: Path) -> None:
    """Cut exactly between two files: the tar reader itself does not notice."""
    archive = packed(tmp_path / "set.tar")
    archive.write_bytes(archive.read_bytes()[: 512 + 2048])
    with pytest.raises(UcdirError, match="it is cut off"):
        list_members(Archive(archive))


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_an_archive_with_damaged_content(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path / name)
    content = bytearray(archive.read_bytes())
    where = bytes(content).find(FILES["set/b/two.png"][100:120]) if name.endswith(".zip") else len(content) // 2
    content[where] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UcdirError, match="cannot be read"):
        unpack(Archive(archive), {member.name: tmp_path / "out" for member in list_members(Archive(archive))}, nothing)


def test_a_web_page_saved_as_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_text("\n<!DOCTYPE html><title>Virus scan warning</title>", encoding="utf-8")
    with pytest.raises(UcdirError, match="it is a web page, saved in its place"):
        list_members(Archive(archive))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_archive_that_may_not_be_read(tmp_path: Path) -> None:
    archive = packed(tmp_path / "set.zip")
    archive.chmod(0)
    with pytest.raises(UcdirError, match=r"cannot be read: Permission denied\. Make it readable\.$"):
        list_members(Archive(archive))


@pytest.mark.parametrize("bad", ["../out.png", "a/../../out.png", "/etc/out.png", "..\\out.png", "C:\\out.png", "C:/o.png"])
@pytest.mark.parametrize("name", ["set.zip", "set.tar"])
def test_names_that_lead_out_of_it(tmp_path: Path, name: str, bad: str) -> None:
    with pytest.raises(UcdirError, match="a name that leads out of it"):
        list_members(Archive(packed(tmp_path / name, {"fine.png": b"", bad: b"evil"})))


def test_links_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind!r}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packing:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        packing.writestr(link, "/etc/passwd")
    assert list_members(Archive(tmp_path / "set.tar")) == list_members(Archive(tmp_path / "set.zip")) == []


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = packed(tmp_path / "set.zip")
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"))
    with pytest.raises(UcdirError, match="is encrypted"):
        list_members(Archive(archive))


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    for name in ("set.zip", "set.tar"):
        with pytest.raises(UcdirError, match="contains more than 2 entries"):
            list_members(Archive(packed(tmp_path / name)))


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(UcdirError, match=r"unpacking needs 1,000,000,000\.0 GB, but the disk of"):
        require_space(tmp_path, 10**18)


def test_a_full_disk_is_not_a_damaged_archive(tmp_path: Path, small_disk: Path) -> None:
    archive = packed(tmp_path / "set.zip", {"a.png": os.urandom(200_000)})
    with pytest.raises(UcdirError, match="the disk is full"):
        unpack(Archive(archive), {"a.png": small_disk / "a.png"}, nothing)


def test_the_size_a_member_claims_bounds_what_is_written(tmp_path: Path) -> None:
    """A zip whose directory says 10 bytes gives at most 10, and says that it is damaged."""
    archive = packed(tmp_path / "set.zip", {"a.png": b"0" * 1_000_000})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UcdirError, match="cannot be read"):
        unpack(Archive(archive), {"a.png": tmp_path / "a.png"}, nothing)
    assert (tmp_path / "a.png").stat().st_size <= 10
