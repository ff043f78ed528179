"""The default of `train`, from two folders to answers, in real processes: nothing but the images decides."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from in_process import ucdir
from small_run import draw_pair, rename_and_flatten

from ucdir.commands.train import train
from ucdir.embedding.backbone_features import embed_with
from ucdir.embedding.compute import Compute
from ucdir.errors import InterruptedRun, UcdirError, UsageError
from ucdir.images.domains import load_domains
from ucdir.model.encoder import Encoder
from ucdir.scoring.directions import EmbeddedDomain, training_free
from ucdir.settings import load_settings

pytestmark = pytest.mark.slow

SMALL = [
    "--backbone",
    "timm/test_resnet",
    "--weights",
    "none",
    "--image-size",
    "32",
    "--device",
    "cpu",
    "--precision",
    "float32",
]
SETTINGS = {
    "encoder.backbone": "timm/test_resnet",
    "encoder.weights": "none",
    "encoder.image_size": 32,
    "run.device": "cpu",
    "run.precision": "float32",
    "data.classes": "none",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photo` and `drawing` in class folders, drawings that nothing has learned from in `new`, and a run."""
    world = tmp_path_factory.mktemp("world")
    draw_pair(world)
    for kind in sorted((world / "drawing").iterdir()):
        (world / "new" / kind.name).mkdir(parents=True)
        next(iter(sorted(kind.iterdir()))).rename(world / "new" / kind.name / "held-out.png")
    (next((world / "photo").iterdir()) / "broken.jpg").write_bytes(b"no image")
    ucdir("train", world / "photo", world / "drawing", *SMALL, "--set", "data.max_unreadable=0.1", "--out", world / "run")
    return world


def memories(run: Path) -> dict[str, dict[bytes, torch.Tensor]]:
    """Of each domain the embedding of each image, by content."""
    encoder = Encoder.load(run / "encoder")
    assert encoder.alignment is not None
    return {
        name: {content.numpy().tobytes(): row for content, row in zip(memory.contents, memory.embeddings, strict=True)}
        for name, memory in zip(encoder.config.domains, encoder.alignment.memories, strict=True)
    }


def is_equal(one: dict[str, dict[bytes, torch.Tensor]], other: dict[str, dict[bytes, torch.Tensor]]) -> bool:
    """To the last bit, whatever the order of domains and images."""
    return one.keys() == other.keys() and all(
        one[name].keys() == other[name].keys() and all(torch.equal(row, other[name][key]) for key, row in one[name].items())
        for name in one
    )


def test_a_run_says_what_it_wrote_and_lists_what_it_skipped(world: Path) -> None:
    assert (world / "run" / "report.html").is_file()
    assert "broken.jpg" in (world / "run" / "images.csv").read_text(encoding="utf-8")
    config = json.loads((world / "run" / "encoder" / "config.json").read_text(encoding="utf-8"))
    assert (config["domains"], config["rows"]) == (["photo", "drawing"], "aligned")


def test_nothing_but_the_images_decides(world: Path, tmp_path: Path) -> None:
    """Classes shuffled, files renamed, folders flattened, the domains the other way round: the same bits."""
    rename_and_flatten(world, tmp_path)
    again = train(
        [str(tmp_path / "drawing"), str(tmp_path / "photo")],
        tmp_path / "run",
        load_settings(assignments=SETTINGS | {"data.max_unreadable": 0.1}),
        report=False,
    )
    assert is_equal(memories(world / "run"), memories(again.folder))


def test_a_finished_run_is_left_alone_and_a_stopped_one_goes_on(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    before = (run / "encoder" / "model.safetensors").stat().st_mtime_ns
    assert "is already finished" in ucdir("train", "--out", run, "--resume").stdout
    assert (run / "encoder" / "model.safetensors").stat().st_mtime_ns == before
    shutil.rmtree(run / "encoder")
    ucdir("train", "--out", run, "--resume", "--no-report")
    assert is_equal(memories(world / "run"), memories(run))


def test_a_run_that_is_to_be_replaced_stays_until_the_features_of_the_new_one_are_there(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    sources = (str(world / "photo"), str(world / "drawing"))
    settings = load_settings(assignments={**SETTINGS, "data.max_unreadable": 0.1, "align.groupings": 1})
    with monkeypatch.context() as patch:
        patch.setattr("ucdir.learn.aligned_run.embed_views", stop)
        with pytest.raises(InterruptedRun, match="Continue with: the same command"):
            train(sources, run, settings, overwrite=True, report=False)
    assert is_equal(memories(world / "run"), memories(run))
    train(sources, run, settings, overwrite=True, report=False)
    assert "groupings = 1" in (run / "config.toml").read_text(encoding="utf-8")


def test_index_takes_the_rows_of_the_run_and_search_says_what_it_took_the_query_for(world: Path, tmp_path: Path) -> None:
    ucdir("index", world / "run", world / "photo", "--out", tmp_path / "g")
    stored = memories(world / "run")["photo"]
    images = pq.read_table(tmp_path / "g" / "images.parquet").to_pylist()
    for image, row in zip(images, np.load(tmp_path / "g" / "embeddings.npy"), strict=True):
        assert np.array_equal(row, stored[bytes.fromhex(image["sha256"])].float().numpy())
    query = next((world / "new").rglob("*.png"))
    answers, exact = {}, ("--precision", "float32")
    for runtime in ("onnx", "torch"):
        found = json.loads(
            ucdir("search", tmp_path / "g", query, "--as", "drawing", *exact, "--runtime", runtime, "--json").stdout
        )
        answers[runtime] = found["queries"][0]
        assert answers[runtime]["domain"] == "drawing"
    for one, other in zip(answers["onnx"]["hits"], answers["torch"]["hits"], strict=True):
        assert one["similarity"] == pytest.approx(other["similarity"], abs=1e-4)
    free = json.loads(ucdir("search", tmp_path / "g", query, "--json").stdout)["queries"][0]
    assert free["domain"] in ("photo", "drawing")
    assert "not on domain 'print'" in ucdir("search", tmp_path / "g", query, "--as", "print", fails=True).stderr


def test_a_folder_with_another_name_needs_to_be_told(world: Path, tmp_path: Path) -> None:
    refused = ucdir("index", world / "run", world / "new", "--out", tmp_path / "g", fails=True)
    assert "not on domain 'new'" in refused.stderr
    assert not (tmp_path / "g").exists()
    ucdir("index", world / "run", world / "new", "--as", "drawing", "--views", "1", "--no-export", "--out", tmp_path / "g")
    ucdir("embed", world / "run", world / "new", "--as", "drawing", "--out", tmp_path / "rows")
    assert len(np.load(tmp_path / "rows.npy")) == len(np.load(tmp_path / "g" / "embeddings.npy"))


def test_a_gallery_does_not_mix_embeddings_of_different_makes(world: Path, tmp_path: Path) -> None:
    new = ["index", world / "run", world / "new", "--device", "cpu", "--no-export", "--out", tmp_path / "gallery"]
    ucdir(*new, "--as", "drawing")
    before = (tmp_path / "gallery" / "embeddings.npy").read_bytes()
    for other, found in (
        (["--as", "photo"], "'photo' in 13 views"),
        (["--as", "drawing", "--views", "1"], "'drawing' in 1 view."),
    ):
        told = ucdir(*new, *other, fails=True).stderr
        assert "was embedded as 'drawing' in 13 views" in told
        assert found in told
        assert "--overwrite" in told
    assert (tmp_path / "gallery" / "embeddings.npy").read_bytes() == before
    ucdir(*new, "--as", "photo", "--overwrite")
    assert (tmp_path / "gallery" / "embeddings.npy").read_bytes() != before


def test_evaluate_shows_it_next_to_what_needs_no_training(world: Path) -> None:
    document = json.loads(ucdir("evaluate", world / "run", "--json").stdout)
    assert document["methods"] == ["frozen", "centred", "smoothed", "aligned", "aligned + expanded"]
    as_it_is = json.loads(ucdir("evaluate", world / "run", "--expand", "0", "--json").stdout)
    assert as_it_is["methods"] == document["methods"][:-1]


@pytest.mark.parametrize("rows", ["frozen", "centred", "smoothed"])
def test_training_free_rows_can_be_searched_as_they_are_scored(world: Path, tmp_path: Path, rows: str) -> None:
    """A gallery of both domains holds the rows that `evaluate` scores."""
    exact = ("--precision", "float32", "--no-export")
    ucdir("index", world / "run", world / "photo", world / "drawing", "--rows", rows, *exact, "--out", tmp_path / "g")
    there = np.load(tmp_path / "g" / "embeddings.npy")
    images = pq.read_table(tmp_path / "g" / "images.parquet").to_pylist()
    domains = load_domains([str(world / "photo"), str(world / "drawing")], classes="folders")
    frozen = [
        embed_with(
            {"f": Encoder.load(world / "run" / "encoder-frozen")},
            d.paths,
            Compute(torch.device("cpu"), "float32"),
            domain=d.name,
        )
        for d in domains
    ]
    scored = training_free(
        [EmbeddedDomain(d.name, f["f"].rows, f["f"].image_ids) for d, f in zip(domains, frozen, strict=True)]
    )
    expected = torch.cat([domain.rows for domain in scored[rows]]).numpy()
    paths = [str(d.paths[row].absolute()) for d, f in zip(domains, frozen, strict=True) for row in f["f"].image_ids.tolist()]
    assert [image["path"] for image in images] == paths
    assert np.allclose(there, expected, atol=2e-3)


def test_rows_that_a_run_does_not_have_end_in_a_sentence(world: Path, tmp_path: Path) -> None:
    refused = ucdir("index", world / "run", world / "photo", "--rows", "mixed", "--out", tmp_path / "g", fails=True)
    assert "--rows 'mixed' is unknown. Use one of: frozen, centred, smoothed, aligned, tuned." in refused.stderr
    refused = ucdir(
        "index", world / "run" / "encoder", world / "photo", "--rows", "centred", "--out", tmp_path / "g", fails=True
    )
    assert "has aligned. Give a run of method align or tune" in refused.stderr


def test_hits_come_with_a_confidence_and_unsure_ones_can_be_left_out(world: Path, tmp_path: Path) -> None:
    ucdir("index", world / "run", world / "photo", "--no-export", "--out", tmp_path / "g")
    query = next((world / "new").rglob("*.png"))
    (found,) = json.loads(ucdir("search", tmp_path / "g", query, "--as", "drawing", "--json").stdout)["queries"]
    assert 0 <= found["confidence"] <= 1
    chances = [hit["confidence"] for hit in found["hits"]]
    assert all(0 <= chance <= found["confidence"] for chance in chances)
    command = ("search", tmp_path / "g", query, "--as", "drawing", "--min-confidence", "1", "--json")
    assert json.loads(ucdir(*command).stdout)["queries"][0]["hits"] == []


def test_the_report_lists_groups_and_pairs(world: Path) -> None:
    """Written at the end of `train`."""
    with (world / "run" / "groups.csv").open(encoding="utf-8") as file:
        groups = list(csv.DictReader(file))
    assert {group["domain"] for group in groups} == {"photo", "drawing"}
    with (world / "run" / "pairs.csv").open(encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    counts = Counter(pair["path"] for pair in pairs)
    assert set(counts.values()) == {5}
    assert {Path(path).is_file() for path in counts} == {True}
    chosen = {(pair["path"], pair["other_path"]) for pair in pairs if pair["partners"] == "yes"}
    assert chosen == {(other, one) for one, other in chosen}
    assert "What was found" in (world / "run" / "report.html").read_text(encoding="utf-8")


def test_folders_that_are_too_small_are_left_as_they_are_and_that_is_said(world: Path, tmp_path: Path) -> None:
    for name in ("photo", "drawing"):
        (tmp_path / name).mkdir()
        for path in sorted((world / name).rglob("*.png"))[:20] or sorted((world / name).rglob("*.jpg"))[:20]:
            shutil.copy(path, tmp_path / name / f"{path.parent.name}-{path.name}")
    said = ucdir("train", tmp_path / "photo", tmp_path / "drawing", *SMALL, "--no-report", "--out", tmp_path / "run")
    assert "Nothing is learned; the embeddings are centred" in said.stdout + said.stderr
    assert Encoder.load(tmp_path / "run" / "encoder").config.rows == "centred"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--epochs", "3"], "--epochs has no effect with method align"),
        (["--num-clusters", "5"], "--num-clusters has no effect with method align"),
        (["--train", "head"], "--train has no effect with method align"),
        (["--set", "optimiser.momentum=0.5"], "--set optimiser.momentum has no effect with method align"),
    ],
)
def test_flags_of_gradient_methods_are_refused_by_name(world: Path, tmp_path: Path, flags: list[str], reason: str) -> None:
    refused = ucdir("train", world / "photo", world / "drawing", *SMALL, *flags, "--out", tmp_path / "run", fails=True)
    assert reason in refused.stderr
    assert not (tmp_path / "run").exists()


def test_one_domain_or_three_images_are_refused(world: Path, tmp_path: Path) -> None:
    settings = load_settings(assignments=SETTINGS)
    with pytest.raises(UsageError, match="cannot align a single domain"):
        train([str(world / "photo")], tmp_path / "run", settings)
    (tmp_path / "few").mkdir()
    for path in sorted((world / "drawing").rglob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "few")
    with pytest.raises(UcdirError, match=r"domain 'few' has 3 images.*needs at least 4"):
        train([str(world / "photo"), str(tmp_path / "few")], tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
