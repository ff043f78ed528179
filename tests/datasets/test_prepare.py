"""Small trees of exactly the layout of each data set -> manifests that `load_domain` reads."""

import io
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from trees import FOLDER, files_of, picture, smaller, write_tree

from ucdir.datasets import prepare as module
from ucdir.datasets.catalogue import (
    DOMAINNET,
    DOMAINNET_ALL,
    OFFICE31,
    OFFICE_HOME,
    PACS,
    VISDA,
    DatasetSpec,
    DomainSpec,
)
from ucdir.datasets.prepare import Prepared, prepare_dataset, preparing
from ucdir.datasets.prepared_set import load_prepared
from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import load_domain
from ucdir.images.opening import open_rgb


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small tree of each data set; tests copy what they change."""
    folder = tmp_path_factory.mktemp("trees")
    for spec in (OFFICE_HOME, DOMAINNET, PACS, VISDA, OFFICE31):
        write_tree(folder / spec.name, files_of(smaller(spec)))
    return {spec.name: folder / spec.name for spec in (OFFICE_HOME, DOMAINNET, PACS, VISDA, OFFICE31)}


@pytest.fixture
def pacs_tree(trees: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(trees["pacs"], tmp_path / "source"))


@pytest.fixture
def domainnet_tree(trees: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(trees["domainnet"], tmp_path / "source"))


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def prepared(spec: DatasetSpec, source: Path, out: Path, allow_differences: bool = False) -> Prepared:
    with preparing(out):
        return prepare_dataset(spec, source, out, allow_differences)


def leftovers(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name.startswith("."))


def parts_of(spec: DatasetSpec) -> dict[str, dict[str, bytes]]:
    """The files of a data set as they come, one archive a domain; lists by themselves."""
    return {
        domain.folders[0]: {n: c for n, c in files_of(spec).items() if n.startswith(f"{domain.folders[0]}/")}
        for domain in spec.domains
    }


def check_manifests(result: Prepared, spec: DatasetSpec) -> None:
    """Each domain has the images and classes that the small tree has."""
    for domain, wanted in zip(result.domains, spec.domains, strict=True):
        found = load_domain(domain.manifest)
        assert found.classes is not None
        assert {name: found.classes.count(name) for name in set(found.classes)} == wanted.classes
        assert open_rgb(found.paths[0]).size == (4, 4)
        assert len(found) == domain.images


# Unpacked folders


@pytest.mark.parametrize("spec", [OFFICE_HOME, DOMAINNET, PACS, VISDA, OFFICE31], ids=lambda spec: spec.name)
def test_unpacked_folders_are_not_copied(spec: DatasetSpec, trees: dict[str, Path], tmp_path: Path) -> None:
    small, out = smaller(spec), tmp_path / "out"
    result = prepared(small, trees[spec.name], out)
    assert result.differences == ()
    assert sorted(file.name for file in out.iterdir()) == sorted(
        [".ucdir-data", "dataset.json", *(f"{domain.name}.csv" for domain in spec.domains)]
    )
    check_manifests(result, small)
    assert all(path.is_relative_to(trees[spec.name]) for path in load_domain(result.domains[0].manifest).paths)
    assert leftovers(tmp_path) == []
    read = load_prepared(out)
    assert (read.name, read.pairs, read.ks, read.preset) == (spec.name, spec.pairs, spec.ks, spec.preset)
    assert read.num_clusters == spec.num_classes
    assert read.domains == tuple((domain.name, out / f"{domain.name}.csv") for domain in spec.domains)


def test_the_document_says_what_is_there(trees: dict[str, Path], tmp_path: Path) -> None:
    prepared(smaller(VISDA), trees["visda"], tmp_path / "out")
    document = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert document == {
        "name": "visda",
        "format_version": 1,
        "title": "VisDA-2017, classification",
        "domains": [
            {"name": "synthetic", "manifest": "synthetic.csv", "images": 18},
            {"name": "real", "manifest": "real.csv", "images": 18},
        ],
        "pairs": [["synthetic", "real"]],
        "ks": [50, 100, 200],
        "preset": None,
        "num_clusters": 12,
        "differences": [],
    }


@pytest.mark.parametrize("folder", ["Real World", "Real_World", "RealWorld", "real-world"])
def test_the_spellings_of_real_world(folder: str, trees: dict[str, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(trees["office-home"], tmp_path / "source"))
    (source / FOLDER["office-home"] / "Real World").rename(source / FOLDER["office-home"] / folder)
    assert prepared(smaller(OFFICE_HOME), source, tmp_path / "out").differences == ()


def test_folders_inside_out_are_named_relatively(pacs_tree: Path, tmp_path: Path) -> None:
    """So that the whole folder may move."""
    prepared(smaller(PACS), pacs_tree, pacs_tree)
    moved = pacs_tree.rename(tmp_path / "moved")
    (_, manifest), *_ = load_prepared(moved).domains
    assert "\nkfold/photo/dog/" in manifest.read_text(encoding="utf-8")
    assert len(load_domain(manifest)) == 10


def test_hidden_files_are_passed_over(pacs_tree: Path, tmp_path: Path) -> None:
    write_tree(
        pacs_tree, {"__MACOSX/kfold/photo/dog/a.png": b"", "kfold/photo/dog/._a.png": b"", "kfold/splits/train.txt": b""}
    )
    assert prepared(smaller(PACS), pacs_tree, tmp_path / "out").differences == ()


def test_a_folder_that_is_linked_to_itself(pacs_tree: Path, tmp_path: Path) -> None:
    (pacs_tree / "kfold" / "photo" / "again").symlink_to(pacs_tree / "kfold")
    assert prepared(smaller(PACS), pacs_tree, tmp_path / "out").differences == ()


def test_the_split_of_domainnet_is_kept(trees: dict[str, Path], tmp_path: Path) -> None:
    result = prepared(smaller(DOMAINNET), trees["domainnet"], tmp_path / "out")
    assert len(load_domain(result.domains[0].manifest, split="test")) == 7
    assert len(load_domain(result.domains[0].manifest, split="train")) == 3


def test_all_classes_of_domainnet(trees: dict[str, Path], tmp_path: Path) -> None:
    domains = [replace(domain, images=None, classes={}, splits={}) for domain in smaller(DOMAINNET).domains]
    everything = replace(DOMAINNET_ALL, domains=tuple(domains), num_classes=8)
    result = prepared(everything, trees["domainnet"], tmp_path / "out")
    assert [(domain.images, domain.classes) for domain in result.domains] == [(11, 8), (12, 8)] * 3
    short = replace(everything, num_classes=9)
    with pytest.raises(UcdirError, match="clipart: classes: found 8, expected 9"):
        prepared(short, trees["domainnet"], tmp_path / "other")


# Archives


def sources_of(spec: DatasetSpec) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Archives as they are really fetched, and as people keep them."""
    files = files_of(smaller(spec))
    yield "one zip", lambda folder: zipped(folder / "set.zip", files)
    yield "one tar.gz", lambda folder: tarred(folder / "set.tar.gz", files)
    yield (
        "a zip in a zip",
        lambda folder: zipped(folder / "a.zip", {"b/set.zip": zipped(folder.parent / "x", files).read_bytes()}),
    )
    yield "a tar in a folder", lambda folder: tarred(folder / "deep" / "er" / "set.tar", files)


@pytest.mark.parametrize("spec", [OFFICE_HOME, DOMAINNET, PACS, OFFICE31], ids=lambda spec: spec.name)
@pytest.mark.parametrize("kind", [kind for kind, _ in sources_of(PACS)])
def test_archives_are_unpacked(spec: DatasetSpec, kind: str, tmp_path: Path) -> None:
    small, out, source = smaller(spec), tmp_path / "out", tmp_path / "source"
    source.mkdir()
    dict(sources_of(spec))[kind](source)
    result = prepared(small, source, out)
    check_manifests(result, small)
    assert all(domain.unpacked for domain in result.domains)
    assert sum(1 for file in (out / "images").rglob("*.png")) == sum(domain.images for domain in result.domains)
    assert leftovers(tmp_path) == []
    moved = out.rename(tmp_path / "moved")
    assert len(load_domain(load_prepared(moved).domains[0][1])) == result.domains[0].images


@pytest.mark.parametrize("spec", [DOMAINNET, VISDA], ids=lambda spec: spec.name)
def test_an_archive_for_each_domain(spec: DatasetSpec, tmp_path: Path) -> None:
    """clipart.zip ... with lists beside them; train.tar and validation.tar with an image list within."""
    small, source = smaller(spec), tmp_path / "source"
    for folder, files in parts_of(small).items():
        if spec is DOMAINNET:
            zipped(source / f"{folder}.zip", files)
        else:
            tarred(source / f"{folder}.tar", files | {f"{folder}/image_list.txt": b"aeroplane/x.png 0\n"})
    write_tree(source, {name: content for name, content in files_of(small).items() if name.endswith(".txt")})
    check_manifests(prepared(small, source, tmp_path / "out"), small)


def test_an_archive_without_the_folder_of_its_domain(tmp_path: Path) -> None:
    small, source = smaller(VISDA), tmp_path / "source"
    for folder, files in parts_of(small).items():
        tarred(source / f"{folder}.tar", {name.removeprefix(f"{folder}/"): content for name, content in files.items()})
    check_manifests(prepared(small, source, tmp_path / "out"), small)


def test_a_single_archive_as_source(tmp_path: Path) -> None:
    small = smaller(PACS)
    check_manifests(prepared(small, zipped(tmp_path / "PACS.zip", files_of(small)), tmp_path / "out"), small)


def test_what_lies_unpacked_is_not_unpacked_again(pacs_tree: Path, tmp_path: Path) -> None:
    """One domain is missing unpacked and comes from the archive beside it."""
    zipped(pacs_tree / "PACS.zip", files_of(smaller(PACS)))
    shutil.rmtree(pacs_tree / "kfold" / "cartoon")
    result = prepared(smaller(PACS), pacs_tree, tmp_path / "out")
    assert [domain.name for domain in result.domains if domain.unpacked] == ["cartoon"]
    (pacs_tree / "broken.zip").write_bytes(b"never looked at")
    write_tree(pacs_tree, {name: content for name, content in files_of(smaller(PACS)).items() if "cartoon" in name})
    result = prepared(smaller(PACS), pacs_tree, tmp_path / "out")
    assert not any(domain.unpacked for domain in result.domains)


def test_what_was_unpacked_serves_without_the_archives(tmp_path: Path) -> None:
    small, out = smaller(VISDA), tmp_path / "out"
    for folder, files in parts_of(small).items():
        tarred(tmp_path / "source" / f"{folder}.tar", files)
    before = prepared(small, tmp_path / "source", out)
    text = before.domains[0].manifest.read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "source")
    check_manifests(prepared(small, out / "images", out), small)
    assert before.domains[0].manifest.read_text(encoding="utf-8") == text


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    small, source = smaller(PACS), tmp_path / "source"
    archive = zipped(source / "PACS.zip", files_of(small))
    content = bytearray(archive.read_bytes())
    content[content.rfind(b"IDAT") + 6] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UcdirError, match=r"archive '.*PACS\.zip' cannot be read: .*CRC.*Delete '.*PACS\.zip', then run again"):
        prepared(small, source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_a_damaged_archive_leaves_what_was_prepared_before(tmp_path: Path) -> None:
    small, source, out = smaller(PACS), tmp_path / "source", tmp_path / "out"
    archive = zipped(source / "PACS.zip", files_of(small))
    prepared(small, source, out)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    content = bytearray(archive.read_bytes())
    content[content.rfind(b"IDAT") + 6] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UcdirError, match="cannot be read"):
        prepared(small, source, out)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_again_after_one_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between images and dataset.json: the old dataset.json speaks of nothing any more; drafts go."""
    small, source, out = smaller(PACS), tmp_path / "source", tmp_path / "out"
    zipped(source / "PACS.zip", files_of(small))
    prepared(small, source, out)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_write_manifest", lambda domain, out: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(small, source, out)
    write_tree(tmp_path, {"out/.images.k1ll3d.tmp/half.png": b"", ".out.k1ll3d.tmp/0/inner.zip": b""})
    with pytest.raises(UcdirError, match=r"contains no dataset\.json"):
        load_prepared(out)
    check_manifests(prepared(small, source, out), small)
    assert leftovers(out) == [".ucdir-data"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["OfficeHomeDataset_10072016.zip", "art.zip", "office (1).zip"])
def test_broken_archives_of_something_else(name: str, tmp_path: Path) -> None:
    """In a folder of downloads, one looked at before the data set and one after, and one within another."""
    small, source = smaller(OFFICE_HOME), tmp_path / "source"
    zipped(source / name, files_of(small))
    for broken in ("a.tar.gz", "zoo.zip"):
        (source / broken).write_bytes(b"broken")
    zipped(source / "holiday.zip", {"beach/photos.zip": b"broken", "beach/sea.png": picture("sea")})
    result = prepared(small, source, tmp_path / "out")
    check_manifests(result, small)
    assert {domain.place for domain in result.domains} == {str(source / name)}
    assert leftovers(tmp_path) == []


def test_likely_archives_come_first(tmp_path: Path) -> None:
    """The clipart of DomainNet has classes of Office-Home too, but is not looked at where the official file is."""
    small, source = smaller(OFFICE_HOME), tmp_path / "source"
    zipped(source / "OfficeHomeDataset_10072016.zip", files_of(small))
    zipped(source / "clipart.zip", {"clipart/bike/1.png": picture("bike")})
    zipped(source / "a.zip", {"Art/Bike/1.png": picture("art")})
    check_manifests(prepared(small, source, tmp_path / "out"), small)


def test_a_broken_archive_where_something_is_missing(tmp_path: Path) -> None:
    """The one that is called like a domain is named first."""
    small, source = smaller(PACS), tmp_path / "source"
    for domain in small.domains:
        inside = {name: content for name, content in files_of(small).items() if f"/{domain.name}/" in name}
        zipped(source / f"{domain.name}.zip", inside)
    (source / "a.zip").write_bytes(b"broken")
    check_manifests(prepared(small, source, tmp_path / "whole"), small)
    (source / "sketch.zip").write_bytes(b"broken")
    with pytest.raises(UcdirError, match=r"^archive '.*/sketch\.zip' cannot be read: .* Delete '.*/sketch\.zip', then"):
        prepared(small, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_archive_where_counts_differ(tmp_path: Path) -> None:
    """An archive for each class: one that cannot be read explains what is absent."""
    small, source = smaller(PACS), tmp_path / "source"
    write_tree(source, files_of(small))
    shutil.rmtree(source / "kfold" / "photo")
    for name in PACS.classes:
        inside = {key.rpartition("/")[2]: content for key, content in files_of(small).items() if f"/photo/{name}/" in key}
        zipped(source / "photo" / f"{name}.zip", inside)
    check_manifests(prepared(small, source, tmp_path / "whole"), small)
    (source / "photo" / "dog.zip").write_bytes(b"broken")
    with pytest.raises(UcdirError, match=r"photo: .* missing: 'dog'\n  not looked into: archive '.*/photo/dog\.zip'"):
        prepared(small, source, tmp_path / "out")


def test_archives_within_archives_are_called_by_the_files_that_people_have(tmp_path: Path) -> None:
    small, source = smaller(PACS), tmp_path / "source"
    inner = zipped(tmp_path / "x", files_of(small)).read_bytes()
    zipped(source / "outer.zip", {"deep/inner.zip": inner})
    result = prepared(small, source, tmp_path / "out")
    assert {domain.place for domain in result.domains} == {f"{source}/outer.zip/deep/inner.zip"}
    zipped(source / "outer.zip", {"deep/inner.zip": inner[:-100]})
    with pytest.raises(UcdirError) as caught:
        prepared(small, source, tmp_path / "out")
    assert str(caught.value).startswith(f"archive '{source}/outer.zip/deep/inner.zip' cannot be read: ")
    assert f"Delete '{source}/outer.zip', then run again" in str(caught.value)


def test_a_damaged_list_in_an_archive_within_another(tmp_path: Path) -> None:
    small, source = smaller(DOMAINNET), tmp_path / "source"
    files = files_of(small) | {"real_test.txt": b"no line of a list\n"}
    zipped(source / "outer.zip", {"inner.zip": zipped(tmp_path / "x", files).read_bytes()})
    with pytest.raises(UcdirError) as caught:
        prepared(small, source, tmp_path / "out")
    assert str(caught.value).startswith(f"list '{source}/outer.zip/inner.zip (real_test.txt)' has 'no line of a list'")


def test_archives_within_archives_end_somewhere(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "x", {"a.png": b""}).read_bytes()
    for _ in range(3):
        inner = zipped(tmp_path / "x", {"x.zip": inner}).read_bytes()
    with pytest.raises(UcdirError, match=r"'.*/y\.zip/z\.zip/x\.zip' is an archive inside 2 others and contains more"):
        prepared(PACS, zipped(tmp_path / "source" / "y.zip", {"z.zip": inner}), tmp_path / "out")


def test_an_archive_that_leads_out_of_itself(tmp_path: Path) -> None:
    zipped(tmp_path / "source" / "PACS.zip", {"../../evil.png": b"evil"})
    with pytest.raises(UcdirError, match="leads out of it"):
        prepared(PACS, tmp_path / "source", tmp_path / "out")
    assert not list(tmp_path.rglob("evil.png"))


# What differs


def test_differences_are_listed_and_can_be_allowed(pacs_tree: Path, tmp_path: Path) -> None:
    small, out = smaller(PACS), tmp_path / "out"
    shutil.rmtree(pacs_tree / "kfold" / "photo" / "dog")
    write_tree(pacs_tree, {"kfold/sketch/cat/1.png": picture("cat"), "kfold/sketch/dog/more.png": picture("more")})
    said = [
        "photo: class 'dog': found 0, expected 1",
        "photo: images: found 9, expected 10",
        "sketch: class 'cat': found 1, expected 0 (no class of PACS)",
        "sketch: class 'dog': found 3, expected 2",
        "sketch: images: found 13, expected 11",
    ]
    with pytest.raises(UcdirError) as caught:
        prepared(small, pacs_tree, out)
    told = ["photo: images: found 9, expected 10; 1 class is missing: 'dog'", said[4], *said[2:4]]
    assert str(caught.value).splitlines()[1:-1] == [f"  {line}" for line in told]
    assert "(--allow-differences)" in str(caught.value)
    assert not out.exists()
    result = prepared(small, pacs_tree, out, allow_differences=True)
    assert [str(difference) for difference in result.differences] == said
    noted = json.loads((out / "dataset.json").read_text(encoding="utf-8"))["differences"]
    assert noted[0] == {"domain": "photo", "subject": "class 'dog'", "found": 0, "expected": 1, "hint": ""}
    assert len(noted) == 5


def test_many_differences_are_cut_short(trees: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match="  and 8 more\n"):
        prepared(PACS, trees["pacs"], tmp_path / "out")


def test_a_very_incomplete_tree_is_told_by_domain(trees: dict[str, Path], tmp_path: Path) -> None:
    """Totals first, one line a domain with the first three absent classes; then what differs singly."""
    source = Path(shutil.copytree(trees["office-home"], tmp_path / "source"))
    for domain in OFFICE_HOME.domains:
        folder = source / FOLDER["office-home"] / domain.folders[0]
        for kind in sorted(folder.iterdir())[5:]:
            shutil.rmtree(kind)
    with pytest.raises(UcdirError) as caught:
        prepared(OFFICE_HOME, source, tmp_path / "out")
    lines = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    for domain, line in zip(OFFICE_HOME.domains, lines, strict=False):
        told = rf"{domain.name}: images: found \d, expected {domain.images:,}; 60 classes are missing: ('\w+', ){{3}}\.\.\."
        assert re.fullmatch(told, line)
    assert len(lines) <= 4 + 20 + 1
    assert "class" not in "".join(line for line in lines[4:] if "found 0" in line)


def test_a_domain_that_is_missing(pacs_tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(pacs_tree / "kfold" / "photo")
    with pytest.raises(
        UcdirError, match=r"photo: images: found 0, expected 10 \(there is no folder 'photo' with its classes\)"
    ):
        prepared(smaller(PACS), pacs_tree, tmp_path / "out")
    prepared(smaller(PACS), pacs_tree, tmp_path / "out", allow_differences=True)
    assert len(load_prepared(tmp_path / "out").pairs) == 3


def test_counts_that_are_not_known_are_not_asserted(trees: dict[str, Path], tmp_path: Path) -> None:
    unknown = tuple(DomainSpec(domain.name, domain.folders) for domain in PACS.domains)
    assert prepared(replace(PACS, domains=unknown), trees["pacs"], tmp_path / "out").differences == ()


@pytest.mark.parametrize(
    ("held", "asked", "title"),
    [
        ("pacs", OFFICE_HOME, "PACS"),
        ("office-home", PACS, "Office-Home"),
        ("domainnet", PACS, "DomainNet, .*"),
        ("visda", OFFICE31, "VisDA-2017, .*"),
    ],
)
def test_another_data_set_is_recognised(
    held: str, asked: DatasetSpec, title: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UcdirError, match=rf"holds {title}, not {asked.title}\. Run: ucdir data prepare {held} --source "):
        prepared(asked, trees[held], tmp_path / "out")


def test_something_else_altogether(tmp_path: Path) -> None:
    write_tree(tmp_path / "source", {"a/b/c.png": picture("c")})
    with pytest.raises(UcdirError, match="holds 1 images, but not two domains of PACS; expected photo, art_painting"):
        prepared(PACS, tmp_path / "source", tmp_path / "out")
    with pytest.raises(UsageError, match=r"--source '.*nowhere' does not exist"):
        prepared(PACS, tmp_path / "nowhere", tmp_path / "out")


def test_a_domain_that_is_there_twice(pacs_tree: Path, tmp_path: Path) -> None:
    shutil.copytree(pacs_tree / "kfold", pacs_tree / "copy")
    with pytest.raises(UcdirError, match="domain 'photo' is there twice"):
        prepared(smaller(PACS), pacs_tree, tmp_path / "out")


# The lists of DomainNet


def test_the_lists_are_needed(domainnet_tree: Path, tmp_path: Path) -> None:
    (domainnet_tree / "sketch_test.txt").unlink()
    with pytest.raises(UcdirError, match=r"domain 'sketch': found its images but not sketch_test\.txt, which list"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


def test_a_list_that_is_cut_off_between_lines(domainnet_tree: Path, tmp_path: Path) -> None:
    lines = (domainnet_tree / "real_test.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (domainnet_tree / "real_test.txt").write_text("".join(lines[:4]), encoding="utf-8")
    with pytest.raises(UcdirError, match=r"real: lines of its lists: found 7, expected 11 \(a list is cut off"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


@pytest.mark.parametrize(
    "line",
    ["clipart/bird/x", "clipart/bird/x.png", "sketch/bird/x.png 0", "clipart/x.png 0", "clipart//x.png 0", "x", "a b c d"],
)
def test_a_list_with_a_damaged_line(domainnet_tree: Path, tmp_path: Path, line: str) -> None:
    with (domainnet_tree / "clipart_train.txt").open("a", encoding="utf-8") as opened:
        opened.write(line)
    with pytest.raises(
        UcdirError, match=r"list '.*clipart_train\.txt' has '.*' in line 4; expected 'clipart/CLASS/FILE NUMBER'"
    ):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


def test_a_list_that_is_no_text(domainnet_tree: Path, tmp_path: Path) -> None:
    (domainnet_tree / "clipart_train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UcdirError, match=r"list '.*clipart_train\.txt' cannot be read"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


def test_a_list_in_two_versions(domainnet_tree: Path, tmp_path: Path) -> None:
    write_tree(domainnet_tree, {"txt/clipart_train.txt": (domainnet_tree / "clipart_train.txt").read_bytes()})
    assert prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out").differences == ()
    write_tree(domainnet_tree, {"txt/clipart_train.txt": b"clipart/bird/x.png 0\n"})
    with pytest.raises(UcdirError, match="differ: two versions of one list"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


def test_the_lists_before_cleaning_are_recognised(domainnet_tree: Path, tmp_path: Path) -> None:
    with (domainnet_tree / "clipart_train.txt").open("a", encoding="utf-8") as opened:
        opened.writelines(f"clipart/zebra_crossing/{number}.png 7\n" for number in range(5))
    with pytest.raises(UcdirError, match=r"clipart: lines of its lists: found 16, expected 11 \(these are the lists bef"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


def test_files_that_the_lists_name_and_that_are_absent(domainnet_tree: Path, tmp_path: Path) -> None:
    """The archive before cleaning beside the cleaned lists, or half an archive."""
    for file in (domainnet_tree / "painting" / "tiger").iterdir():
        file.rename(file.with_name(f"other_{file.name}"))
    with pytest.raises(
        UcdirError, match=r"painting: files that its lists name: found \d+, expected \d+ \(absent is 'tiger/.*cleaned"
    ):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")
    shutil.rmtree(domainnet_tree / "painting")
    with pytest.raises(UcdirError, match=r"painting: images: found 0, expected \d+ \(there is no folder 'painting'"):
        prepared(smaller(DOMAINNET), domainnet_tree, tmp_path / "out")


# The folder that is written


def test_two_at_once(trees: dict[str, Path], tmp_path: Path) -> None:
    with preparing(tmp_path / "out"), pytest.raises(UcdirError, match="is being written by another ucdir data prepare"):
        prepared(smaller(PACS), trees["pacs"], tmp_path / "out")


@pytest.mark.parametrize("name", ["images/mine.png", "photo.csv", "dataset.json"])
def test_what_somebody_else_wrote_is_left_alone(name: str, trees: dict[str, Path], tmp_path: Path) -> None:
    write_tree(tmp_path / "out", {name: b"mine"})
    with pytest.raises(UsageError, match="exists and was not written by ucdir data prepare"):
        prepared(smaller(PACS), trees["pacs"], tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == b"mine"


def test_one_folder_holds_one_data_set(trees: dict[str, Path], tmp_path: Path) -> None:
    prepared(smaller(PACS), trees["pacs"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds the data set pacs\. Give another folder for visda"):
        prepared(smaller(VISDA), trees["visda"], tmp_path / "out")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"):
        prepared(smaller(VISDA), trees["visda"], tmp_path / "file")


def test_a_file_name_that_is_no_text(pacs_tree: Path, tmp_path: Path) -> None:
    (pacs_tree / "kfold" / "photo" / "dog" / "\udcff.png").write_bytes(picture("x"))
    with pytest.raises(UcdirError, match=r"contains a file name that is not UTF-8"):
        prepared(smaller(PACS), pacs_tree, tmp_path / "out", allow_differences=True)
