"""Folders and manifests as people have them, right and wrong."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ucdir.errors import UcdirError, UsageError
from ucdir.images.domains import Domain, IgnoredFiles, class_ids, load_domain, load_domains


def tree(root: Path, *names: str) -> Path:
    """Empty files; loading a domain opens none of them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def relative(domain: Domain) -> list[str]:
    return [path.relative_to(domain.source).as_posix() for path in domain.paths]


def refusal(kind: type[UcdirError], *arguments: object, **settings: object) -> str:
    with pytest.raises(kind) as caught:
        load_domain(*arguments, **settings)
    assert type(caught.value) is kind
    return str(caught.value)


# Folders


def test_a_flat_folder_is_an_unlabelled_domain_sorted_by_path(tmp_path):
    root = tree(tmp_path / "shop", "b.png", "a.jpg", "c.WEBP", "a10.jpg", "B.tif")
    domain = load_domain(root)
    assert domain.name == "shop"
    assert relative(domain) == ["B.tif", "a.jpg", "a10.jpg", "b.png", "c.WEBP"]
    assert domain.classes is None
    assert domain.ignored == IgnoredFiles()
    assert len(domain) == 5


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dog/1.jpg", "cat/1.jpg", "dog/2.jpg"], ("cat", "dog", "dog")),
        (["train/dog/1.jpg", "train/cat/1.jpg", "test/dog/1.jpg"], ("dog", "cat", "dog")),
        (["images/1.jpg", "images/2.jpg"], None),
        (["train/images/1.jpg", "test/images/2.jpg"], None),
        (["train/1.jpg", "test/2.jpg"], None),
        (["dog/1.jpg", "cat/1.jpg", "0.jpg"], None),
        (["dog/1.jpg", "cat/tabby/1.jpg"], None),
        (["1.jpg", "2.jpg"], None),
    ],
)
def test_classes_auto(names, expected, tmp_path):
    assert load_domain(tree(tmp_path / "d", *names)).classes == expected


def test_classes_folders_and_none(tmp_path):
    root = tree(tmp_path / "d", "images/1.jpg", "cats/tabby/1.jpg")
    assert load_domain(root, classes="folders").classes == ("tabby", "images")
    assert load_domain(root, classes="none").classes is None
    tree(root, "0.jpg")
    message = refusal(UsageError, root, classes="folders")
    assert "'0.jpg'" in message
    assert "--classes none" in message
    assert "auto, folders, none" in refusal(UsageError, root, classes="guess")


def test_hidden_and_foreign_files_are_counted_not_read(tmp_path):
    hidden = [".DS_Store", "a/._1.jpg", ".git/x.jpg", "__MACOSX/a/1.jpg", "Thumbs.db", "a/desktop.ini"]
    root = tree(tmp_path / "d", "a/1.jpg", "b/1.jpg", "notes.txt", "a/clip.mp4", "LICENSE", *hidden)
    domain = load_domain(root)
    assert relative(domain) == ["a/1.jpg", "b/1.jpg"]
    assert domain.ignored == IgnoredFiles(6, 3, (".DS_Store", ".git", "LICENSE", "Thumbs.db", "__MACOSX"))


def test_unicode_names_and_classes_in_either_form(tmp_path):
    composed = load_domain(tree(tmp_path / "Café", "é/猫 1.jpg", "dog/1.jpg"))
    decomposed = load_domain(tree(tmp_path / "other", "e\u0301/1.jpg", "dog/1.jpg"))
    assert composed.name == "Café"
    assert set(composed.classes) == set(decomposed.classes) == {"é", "dog"}
    assert all(path.exists() for path in (*composed.paths, *decomposed.paths))


def test_a_file_name_that_is_no_unicode(tmp_path):
    root = tree(tmp_path / "d", "1.jpg")
    try:
        (tmp_path / "d" / os.fsdecode(b"\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system wants unicode names")
    assert len(load_domain(root)) == 2


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    away = tree(tmp_path / "away", "3.jpg", "sub/4.jpg")
    root = tree(tmp_path / "d", "a/1.jpg", "b/2.jpg")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    (root / "linked").symlink_to(away)
    (root / "again").symlink_to(away)
    (root / "a" / "one.jpg").symlink_to(away / "3.jpg")
    (root / "a" / "broken.jpg").symlink_to(away / "gone.jpg")
    domain = load_domain(root)
    expected = ["a/1.jpg", "a/broken.jpg", "a/one.jpg", "again/3.jpg", "again/sub/4.jpg", "b/2.jpg"]
    assert relative(domain) == expected
    assert domain.ignored.foreign == 3


def test_a_folder_named_like_an_image_is_entered(tmp_path):
    assert relative(load_domain(tree(tmp_path / "d", "x.jpg/1.png", "y.jpg/1.png"))) == [
        "x.jpg/1.png",
        "y.jpg/1.png",
    ]


def test_split_of_a_folder(tmp_path):
    root = tree(tmp_path / "d", "train/dog/1.jpg", "train/cat/1.jpg", "test/dog/2.jpg", ".cache/x/1.jpg")
    domain = load_domain(root, split="train")
    assert relative(domain) == ["train/cat/1.jpg", "train/dog/1.jpg"]
    assert domain.classes == ("cat", "dog")
    assert domain.name == "d"
    for wrong in ("val", "..", ".cache", "train/dog", ""):
        assert "test, train" in refusal(UsageError, root, split=wrong)
    assert "no folders" in refusal(UsageError, tree(tmp_path / "flat", "1.jpg"), split="train")


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    root = tree(tmp_path / "sketch", "a.txt", "b/c.md", ".hidden")
    message = refusal(UcdirError, root)
    assert message.startswith("domain 'sketch' has no images: looked for .jpg .jpeg .png .webp")
    assert f"under {root} (0 of 3 files). Give the folder that holds them." in message


def test_a_path_that_is_not_there(tmp_path):
    tree(tmp_path / "sketches", "1.jpg")
    message = refusal(UsageError, tmp_path / "sketchs")
    assert f"'{tmp_path / 'sketchs'}' does not exist. Did you mean '{tmp_path / 'sketches'}'?" in message
    assert "Give a folder of images" in refusal(UsageError, tmp_path / "zzz")
    assert "Give a folder of images" in refusal(UsageError, tmp_path / "none" / "zzz")
    assert "does not exist" in refusal(UsageError, tmp_path / "a*.jpg")
    assert "does not exist" in refusal(UsageError, tmp_path / "a\0b", name="d")
    assert "does not exist" in refusal(UsageError, tmp_path / ("x" * 300), name="d")


def test_a_file_that_is_no_manifest(tmp_path):
    message = refusal(UsageError, tree(tmp_path, "a.jpg") / "a.jpg")
    assert "is a file but not a manifest. Give a folder of images or a .csv or .parquet manifest." in message


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    root = tree(tmp_path / "d", "a/1.jpg", "b/1.jpg")
    real = os.scandir

    def scandir(folder: object) -> object:
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"cannot read folder '{root / 'b'}': Permission denied" in refusal(UcdirError, root)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tree(tmp_path / "home", "pics/1.jpg").resolve()))
    assert len(load_domain(Path("~/pics"))) == 1
    assert load_domains(["x=~/pics"])[0].name == "x"


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path / "here", "1.jpg", "sub/"))
    assert load_domain(Path()).name == "here"
    assert load_domain(Path("../here/")).name == "here"


def test_many_files_load_in_no_time(tmp_path):
    (tmp_path / "d").mkdir()
    for number in range(5_000):
        os.close(os.open(tmp_path / "d" / f"{number}.jpg", os.O_CREAT))
    start = time.process_time()
    assert len(load_domain(tmp_path / "d")) == 5_000
    assert time.process_time() - start < 2


# Manifests


def csv_file(path: Path, text: str, *, bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")
    return path


@pytest.fixture
def shop(tmp_path) -> Path:
    return tree(tmp_path, "img/1.jpg", "img/2.jpg", "img/b, c.jpg", "other/é.jpg")


@pytest.mark.parametrize("bom", [False, True])
def test_a_csv_manifest_keeps_its_order(bom, shop):
    text = 'id, class ,path\n7,dog,img/2.jpg\n8,,img/1.jpg\n\n9,"cat","img/b, c.jpg"\n10, e\u0301 ,other/é.jpg\n'
    domain = load_domain(csv_file(shop / "shop.csv", text, bom=bom))
    assert domain.name == "shop"
    assert domain.source == shop / "shop.csv"
    assert [p.relative_to(shop).as_posix() for p in domain.paths] == [
        "img/2.jpg",
        "img/1.jpg",
        "img/b, c.jpg",
        "other/é.jpg",
    ]
    assert domain.classes == ("dog", None, "cat", "é")


def test_absolute_paths_and_parent_folders(shop):
    manifest = csv_file(shop / "lists" / "m.CSV", f"path\n{shop}/img/1.jpg\n../img/2.jpg\n")
    assert [path.exists() for path in load_domain(manifest).paths] == [True, True]


def test_a_manifest_without_classes_is_unlabelled(shop):
    assert load_domain(csv_file(shop / "m.csv", "path\nimg/1.jpg\n")).classes is None
    assert load_domain(csv_file(shop / "m.csv", "path,class\nimg/1.jpg,\n")).classes is None
    labelled = csv_file(shop / "m.csv", "path,class\nimg/1.jpg,dog\n")
    assert load_domain(labelled).classes == ("dog",)
    assert load_domain(labelled, classes="none").classes is None
    assert load_domain(labelled, classes="folders").classes == ("img",)


def test_splits_of_a_manifest(shop):
    manifest = csv_file(shop / "m.csv", "path,split\nimg/1.jpg,train\nimg/2.jpg,test\ngone.jpg,later\n")
    assert [path.name for path in load_domain(manifest, split="test").paths] == ["2.jpg"]
    message = refusal(UsageError, manifest, split="val")
    assert "has no split 'val' (found: later, test, train)" in message
    plain = csv_file(shop / "p.csv", "path\nimg/1.jpg\n")
    assert "has no column 'split' (found: path)" in refusal(UsageError, plain, split="val")


def test_a_parquet_manifest(shop):
    table = {
        "path": ["img/1.jpg", "img/2.jpg"],
        "class": pa.array(["dog", None]).dictionary_encode(),
        "split": [0, 1],
        "other": [[1], [2]],
    }
    pq.write_table(pa.table(table), shop / "m.parquet")
    assert load_domain(shop / "m.parquet").classes == ("dog", None)
    assert load_domain(shop / "m.parquet", split="1").classes is None
    pq.write_table(pa.table({"path": ["img/1.jpg", "img/2.jpg"], "class": [1.0, float("nan")]}), shop / "n.parquet")
    assert load_domain(shop / "n.parquet").classes == ("1.0", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\nimg/1.jpg,dog\n", "has no column 'path' (found: file, label)"),
        ("", "has no column 'path' (found: none)"),
        ("path\n", "lists no images"),
        ("path,class\n,dog\n", "has an empty path in row 1"),
        ("path\nimg/1.jpg\nimg/../img/1.jpg\nimg/2.jpg\n", "more than once"),
        ("path\nimg/1.jpg,x\n", "has 2 fields in row 1 but 1 columns"),
        ('path\n"img/1.jpg\n', "cannot read manifest"),
    ],
)
def test_wrong_csv_manifests(text, expected, shop):
    assert expected in refusal(UcdirError, csv_file(shop / "m.csv", text))


def test_absent_files_are_counted_and_three_are_named(shop):
    manifest = csv_file(shop / "m.csv", "path\nimg/1.jpg\n" + "".join(f"x{i}.jpg\n" for i in range(5)))
    first_three = ", ".join(f"'{shop / f'x{number}.jpg'}'" for number in range(3))
    assert f"lists 5 paths ({first_three}, ...) that do not exist" in refusal(UcdirError, manifest)


def test_files_that_are_no_manifests_inside(shop):
    (shop / "m.csv").write_bytes("path\nimg/é.jpg\n".encode("latin-1"))
    assert "Save it as UTF-8 .csv or as .parquet." in refusal(UcdirError, shop / "m.csv")
    (shop / "m.parquet").write_bytes(b"path\n")
    assert "cannot read manifest" in refusal(UcdirError, shop / "m.parquet")
    pq.write_table(pa.table({"file": ["img/1.jpg"]}), shop / "n.parquet")
    assert "has no column 'path' (found: file)" in refusal(UcdirError, shop / "n.parquet")


# Several domains


def test_names_are_given_or_taken_from_the_folder(tmp_path):
    tree(tmp_path, "photo/1.jpg", "a=b/1.jpg", "x/1.jpg")
    domains = load_domains([f"{tmp_path}/photo/", f"Real World={tmp_path}/x", f"{tmp_path}/a=b"])
    assert [domain.name for domain in domains] == ["photo", "Real World", "a=b"]


def test_an_equals_sign_in_an_existing_relative_path_is_part_of_the_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, "a=b/1.jpg", "b/1.jpg"))
    (named,) = load_domains(["a=b"])
    assert named.name == "a=b"
    (named,) = load_domains(["c=b"])
    assert (named.name, named.source) == ("c", Path("b"))


def test_two_domains_may_not_share_a_name_or_a_place(tmp_path):
    tree(tmp_path, "a/photo/1.jpg", "b/Photo/1.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "photo")
    with pytest.raises(UsageError, match=r"would both be domain 'Photo'\. Name them: NAME="):
        load_domains([f"{tmp_path}/a/photo", f"{tmp_path}/b/Photo"])
    assert len(load_domains([f"{tmp_path}/a/photo", f"other={tmp_path}/b/Photo"])) == 2
    for again in ("a/photo", "a/../a/photo/", "link"):
        with pytest.raises(UsageError, match="are the same place"):
            load_domains([f"{tmp_path}/a/photo", f"x={tmp_path}/{again}"])


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", ".x", "", " a", "a\n", "a:b", "x" * 101])
def test_a_name_must_be_good_for_file_names(name, tmp_path):
    assert "cannot be the name of a domain" in refusal(UsageError, tree(tmp_path / "d", "1.jpg"), name=name)


def test_a_folder_whose_name_is_no_name_wants_another(tmp_path):
    root = tree(tmp_path / "10:30", "1.jpg")
    assert f"Write NAME={root}." in refusal(UsageError, root)
    assert load_domains([f"late={root}"])[0].name == "late"


@pytest.mark.parametrize("source", ["=x", "x="])
def test_half_a_name_and_path(source):
    with pytest.raises(UsageError, match="has no name or no path"):
        load_domains([source])


def test_subset_and_without_classes(tmp_path):
    domain = load_domain(tree(tmp_path / "d", "a/1.jpg", "b/1.jpg", "c/1.jpg"))
    part = domain.subset([2, 0])
    assert relative(part) == ["c/1.jpg", "a/1.jpg"]
    assert part.classes == ("c", "a")
    assert part.without_classes().classes is None
    assert part.without_classes().subset([1]).paths == domain.paths[:1]


def test_class_ids_match_by_name_across_domains():
    def domain(name: str, *classes: str | None) -> Domain:
        return Domain(name, tuple(Path(f"{i}.jpg") for i in range(len(classes))), classes or None, Path(name))

    unlabelled = domain("z", "a", "b").without_classes()
    names, ids = class_ids([domain("x", "dog", "cat", None), domain("y", "cat", "emu"), unlabelled])
    assert names == ("cat", "dog", "emu")
    assert [row.tolist() for row in ids] == [[1, 0, -1], [0, 2], [-1, -1]]
    assert all(row.dtype == np.int64 for row in ids)
    assert class_ids([]) == ((), ())


def test_real_folders(pacs):
    photo, sketch = load_domains([str(pacs / "photo"), str(pacs / "sketch")])
    assert (len(photo), len(sketch)) == (1670, 3929)
    names, _ = class_ids([photo, sketch])
    assert names == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
