"""The tables of the known data sets add up, names are found, and a damaged dataset.json ends in one sentence."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ucdir.datasets.catalogue import (
    DATASETS,
    DOMAINNET,
    DOMAINNET_ALL,
    OFFICE31,
    OFFICE_HOME,
    PACS,
    VISDA,
    DatasetSpec,
    dataset,
)
from ucdir.datasets.prepared_set import load_prepared
from ucdir.errors import UcdirError, UsageError
from ucdir.settings import load_settings

DOCUMENT = {
    "name": "pacs",
    "version": 1,
    "domains": [
        {"name": "photo", "manifest": "photo.csv", "images": 3},
        {"name": "sketch", "manifest": "sketch.csv", "images": 2},
    ],
    "pairs": [["photo", "sketch"]],
    "ks": [1, 5],
    "preset": None,
    "num_clusters": 7,
    "differences": [],
}


def images(spec: DatasetSpec) -> dict[str, int | None]:
    return {domain.name: domain.images for domain in spec.domains}


@pytest.mark.parametrize("spec", [*DATASETS, DOMAINNET_ALL], ids=lambda spec: spec.title)
def test_the_tables_add_up(spec: DatasetSpec) -> None:
    assert not spec.classes or len(set(spec.classes)) == len(spec.classes) == spec.num_classes
    for domain in spec.domains:
        assert not domain.classes or set(domain.classes) == set(spec.classes)
        assert not domain.classes or sum(domain.classes.values()) == domain.images
    names = [domain.name for domain in spec.domains]
    assert {name for pair in spec.pairs for name in pair} <= set(names)
    assert spec.ks == tuple(sorted(spec.ks))


def test_the_known_totals() -> None:
    assert images(OFFICE_HOME) == {"art": 2427, "clipart": 4365, "product": 4439, "real_world": 4357}
    assert sum(domain.images or 0 for domain in OFFICE_HOME.domains) == 15588
    assert images(PACS) == {"photo": 1670, "art_painting": 2048, "cartoon": 2344, "sketch": 3929}
    assert images(VISDA) == {"synthetic": 152397, "real": 55388}
    assert images(OFFICE31) == {"amazon": 2817, "dslr": 498, "webcam": 795}
    assert images(DOMAINNET)["clipart"] == 1959
    assert images(DOMAINNET)["real"] is None
    assert sum(domain.listed or 0 for domain in DOMAINNET_ALL.domains) == 586575


def test_the_pairs_of_the_paper() -> None:
    assert len(OFFICE_HOME.pairs) == 6
    assert len(DOMAINNET.pairs) == 6
    assert ("painting", "quickdraw") in DOMAINNET.pairs
    for spec in (OFFICE_HOME, PACS, VISDA, OFFICE31):
        assert spec.pairs == tuple(combinations((domain.name for domain in spec.domains), 2))


@pytest.mark.parametrize("spec", DATASETS, ids=lambda spec: spec.name)
def test_a_preset_exists_and_has_as_many_clusters(spec: DatasetSpec) -> None:
    if spec.preset is not None:
        assert load_settings(spec.preset, None, {}).method.num_clusters == (spec.num_classes,)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("OfficeHome", "Did you mean office-home"), ("domain-net", "Did you mean domainnet"), ("cub", "Use one of: office")],
)
def test_an_unknown_name_names_near_ones(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"data set '{name}' is unknown. {hint}"):
        dataset(name)


def test_all_classes() -> None:
    assert dataset("domainnet", "all").num_classes == 345
    assert dataset("pacs", "all") is PACS
    with pytest.raises(UsageError, match="--classes 'seven' is unknown"):
        dataset("domainnet", "seven")


def written(folder: Path, document: Any) -> Path:
    for name in ("photo.csv", "sketch.csv"):
        (folder / name).write_text("path,class\n", encoding="utf-8")
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    return folder


def test_reading_a_prepared_folder(tmp_path: Path) -> None:
    found = load_prepared(written(tmp_path, DOCUMENT))
    assert found.domains == (("photo", tmp_path / "photo.csv"), ("sketch", tmp_path / "sketch.csv"))
    assert (found.name, found.pairs, found.ks) == ("pacs", (("photo", "sketch"),), (1, 5))
    assert (found.preset, found.num_clusters) == (None, 7)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": "new"},
        {"domains": []},
        {"domains": [{"name": "photo"}]},
        {"domains": "photo"},
        {"pairs": [["photo", "art"]]},
        {"pairs": [["photo"]]},
        {"pairs": []},
        {"ks": ["1"]},
        {"ks": None},
        {"num_clusters": 0},
        {"num_clusters": True},
        {"preset": 3},
        {"name": ""},
    ],
    ids=str,
)
def test_a_damaged_document_ends_in_one_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UcdirError, match=r"dataset.json' is damaged: .*\. Run ucdir data prepare again\.$"):
        load_prepared(written(tmp_path, DOCUMENT | change))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "{}", "\udcff"], ids=repr)
def test_text_that_is_no_document(tmp_path: Path, text: str) -> None:
    folder = written(tmp_path, DOCUMENT)
    (folder / "dataset.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UcdirError, match="is damaged"):
        load_prepared(folder)


def test_what_is_absent(tmp_path: Path) -> None:
    with pytest.raises(UcdirError, match=r"contains no dataset\.json"):
        load_prepared(tmp_path)
    (written(tmp_path, DOCUMENT) / "sketch.csv").unlink()
    with pytest.raises(UcdirError, match=r"names the manifest '.*sketch\.csv', which does not exist"):
        load_prepared(tmp_path)
