"""`evaluate`: the rows it always prints, what it refuses, and that its figures can be produced again."""

import hashlib
import json
import re
import shutil
import sys
from collections import Counter

import pytest
import torch
from PIL import Image, ImageDraw
from rich.console import Console

from ucdir.cli import main
from ucdir.commands.evaluate import evaluate
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import embed
from ucdir.errors import UcdirError, UsageError
from ucdir.images.opening import open_rgb
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.report.terminal.scores import score_document, score_table
from ucdir.scoring.metrics import score
from ucdir.scoring.training_free import centred, smoothed

pytestmark = pytest.mark.slow

BACKBONE = "torchvision/shufflenet_v2_x0_5"
SHAPES = ("disc", "box", "bar")


def save_picture(file, shape, number, photo):
    image = Image.new("RGB", (40, 40), (40 * number % 200, 90, 160) if photo else "white")
    pen, low = ImageDraw.Draw(image), 4 + number
    look = {"fill": "orange"} if photo else {"outline": "black"}
    if shape == "disc":
        pen.ellipse((low, low, 34, 34), **look)
    else:
        pen.rectangle((low, low, 34, 34 if shape == "box" else low + 5), **look)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """photo/ and drawing/ with classes, and a run folder with all encoders."""
    folder = tmp_path_factory.mktemp("evaluate")
    for shape in SHAPES:
        for number in range(4):
            save_picture(folder / "photo" / shape / f"{number}.png", shape, number, photo=True)
            save_picture(folder / "drawing" / shape / f"{number}.png", shape, number, photo=False)
    for seed, (name, dim) in enumerate({"-frozen": None, "": 8, "-label-free": 8, "-oracle": 8}.items()):
        torch.manual_seed(seed)
        build_encoder(BACKBONE, "none", 32, dim=dim).save(folder / "run" / f"encoder{name}")
    domains = ", ".join(f'"{name}={folder / name}"' for name in ("photo", "drawing"))
    (folder / "run" / "config.toml").write_text(f"[data]\ndomains = [{domains}]\n")
    return folder


@pytest.fixture(scope="module")
def report(work):
    return evaluate(work / "run", ks=(1, 3), device="cpu", precision="float32", resamples=50)


def test_an_image_is_decoded_once_for_all_encoders(work, tmp_path, monkeypatch):
    decoded = Counter()

    def counting(source):
        image = open_rgb(source)
        decoded[hashlib.sha256(image.tobytes()).hexdigest()] += 1
        return image

    monkeypatch.setattr("ucdir.images.pixel_cache.open_rgb", counting)
    given = {"device": "cpu", "precision": "float32", "resamples": 0}
    cached = evaluate(work / "run", cache_dir=str(tmp_path / "cache"), **given)
    assert len(decoded) == 24
    assert set(decoded.values()) == {1}
    assert score_document(evaluate(work / "run", cache_dir="none", **given)) == score_document(cached)


def text_of(renderable, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(renderable)
        return console.export_text()


def test_a_run_gives_its_rows_by_name_with_the_last_epoch_last(report):
    assert report.methods == (
        "frozen",
        "centred",
        "smoothed",
        "trained (label-free epoch)",
        "trained (oracle epoch)",
        "trained",
    )
    assert report.directions == (("photo", "drawing"), ("drawing", "photo"))
    assert [(domain.name, domain.images, domain.with_class) for domain in report.domains] == [
        ("photo", 12, 12),
        ("drawing", 12, 12),
    ]


@pytest.mark.parametrize("method", ["frozen", "centred", "smoothed", "trained"])
def test_figures_are_those_of_the_parts(work, report, method):
    name = "encoder" if method == "trained" else "encoder-frozen"
    encoder = Encoder.load(work / "run" / name)
    change = {"centred": centred, "smoothed": smoothed}.get(method, lambda rows: rows)
    photo, drawing = (
        change(embed(encoder, sorted((work / domain).rglob("*.png")), Compute(torch.device("cpu"), "float32")).rows)
        for domain in ("photo", "drawing")
    )
    ids = torch.arange(3).repeat_interleave(4)
    there, back = score(photo, drawing, ids, ids, (1, 3)), score(drawing, photo, ids, ids, (1, 3))
    assert report.scores(method, "photo", "drawing")["P@3"].value == there["P@3"].value
    mean = (there["mAP@All"].value + back["mAP@All"].value) / 2
    assert report.pair_mean(method, "photo", "drawing", "mAP@All") == pytest.approx(mean)


def test_an_encoder_folder_needs_its_frozen_backbone(work, tmp_path):
    sources = [str(work / "photo"), str(work / "drawing")]
    torch.manual_seed(1)
    build_encoder(BACKBONE, "none", 32, dim=8).save(tmp_path / "alone")
    with pytest.raises(UcdirError, match="--frozen"):
        evaluate(tmp_path / "alone", sources, device="cpu")
    frozen = work / "run" / "encoder-frozen"
    report = evaluate(tmp_path / "alone", sources, ks=(1,), frozen=frozen, device="cpu", resamples=0)
    assert report.methods == ("frozen", "centred", "smoothed", "trained")
    beside = evaluate(work / "run" / "encoder", sources, ks=(1,), device="cpu", resamples=0)
    assert beside.methods == ("frozen", "centred", "smoothed", "trained")
    bare = evaluate(frozen, sources, ks=(1,), device="cpu", resamples=0)
    assert bare.methods == ("frozen", "centred", "smoothed")


def test_a_backbone_alone_gives_the_rows_without_training(work, tmp_path):
    weights = work / "run" / "encoder-frozen" / "model.safetensors"
    sources = [f"a={work / 'photo'}", f"b={work / 'drawing'}"]
    report = evaluate(None, sources, (3,), backbone=BACKBONE, weights=str(weights), image_size=32, device="cpu")
    assert report.methods == ("frozen", "centred", "smoothed")
    assert report.directions[0] == ("a", "b")
    with pytest.raises(UsageError, match="cannot be combined with an encoder"):
        evaluate(work / "run", sources, backbone=BACKBONE)
    with pytest.raises(UsageError, match="give a run folder"):
        evaluate(None, sources)


def test_classes_missing_on_one_side_and_unreadable_images_are_shown(work, tmp_path):
    for shape in SHAPES[:2]:
        save_picture(tmp_path / "few" / shape / "1.png", shape, 1, photo=False)
    (tmp_path / "few" / "box" / "bad.png").write_bytes(b"x")
    report = evaluate(work / "run", [str(work / "photo"), str(tmp_path / "few")], (1, 3), device="cpu", resamples=9)
    assert report.scores("trained", "photo", "few").without_relevant == 4
    shown = text_of(score_table(report))
    assert "4 queries have no relevant image" in shown
    assert "1 unreadable images skipped" in shown
    assert "reach 22.2 at most" in shown  # 8 of 12 queries have one relevant image each
    document = score_document(report)
    assert document["directions"][0]["without_relevant"] == 4
    assert document["directions"][0]["methods"]["trained"]["per_class"]["bar"]["metrics"]["mAP@All"] is None
    assert document["domains"][1]["unreadable"][0]["reason"]


def test_domains_that_cannot_be_scored_are_named(work, tmp_path):
    for number in range(2):
        save_picture(tmp_path / "flat" / f"{number}.png", "disc", number, photo=True)
        save_picture(tmp_path / "other" / f"kind{number}" / "1.png", "disc", number, photo=True)
    photo = str(work / "photo")
    with pytest.raises(UcdirError, match="domain 'flat' has no classes"):
        evaluate(work / "run", [photo, str(tmp_path / "flat")])
    with pytest.raises(UcdirError, match="have no class names in common: bar, box, disc against kind0, kind1"):
        evaluate(work / "run", [photo, str(tmp_path / "other")])
    with pytest.raises(UsageError, match="scoring needs at least two domains"):
        evaluate(work / "run", [photo])
    with pytest.raises(UsageError, match="k=0"):
        evaluate(work / "run", ks=(0, 5))
    with pytest.raises(UsageError, match="has no domains"):
        evaluate(work / "run" / "encoder")


@pytest.mark.parametrize("figure", ["P", "capped", "mAP", "R"])
def test_the_table_reads_well_in_100_columns(report, figure):
    shown = text_of(score_table(report, figure))
    assert all(len(line.rstrip()) <= 100 for line in shown.splitlines())
    for method in report.methods:
        lines = [line for line in shown.splitlines() if line.strip().startswith(f"{method}  ")]
        assert len(lines) == 3, method
    assert "bootstrap over queries, 50 resamples, seed 0" in shown
    assert f"{100 * report.scores('trained', 'photo', 'drawing')['mAP@All'].value:.1f}" in shown


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_figure_is_cut_in_a_narrow_terminal(work, width):
    """Columns that do not fit go on below: each figure and interval stands there whole, as often as in a wide one."""
    report = evaluate(work / "run", ks=(1, 5, 10, 12), device="cpu", precision="float32", resamples=50)
    wide, narrow = (text_of(score_table(report), columns).partition("Percent.")[0] for columns in (200, width))
    for pattern in (r"[\d.]+ to [\d.]+", r"(?<!\S)\d+\.\d(?!\S)"):
        assert Counter(re.findall(pattern, narrow)) == Counter(re.findall(pattern, wide))
    assert "…" not in narrow
    assert (width >= 80) == (narrow.count("trained (label-free epoch)  ") == 3)


def test_the_command_line_prints_a_table_or_json(work, monkeypatch, capsys):
    command = ["ucdir", "evaluate", str(work / "run"), "--k", "2", "--device", "cpu"]
    for option in ("--figure=R", "--json"):
        monkeypatch.setattr(sys, "argv", [*command, option])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code in (None, 0)
        printed = capsys.readouterr().out
        assert option == "--json" or "R@2" in printed
    document = json.loads(printed)
    assert document["ks"] == [2]
    figures = document["directions"][0]["methods"]["trained"]["metrics"]
    assert set(figures) == {"P@2", "capped P@2", "mAP@2", "R@2", "mAP@All"}
    assert document["means"][0]["domains"] == ["photo", "drawing"]


def test_an_encoder_that_collapsed_is_named_and_scores_chance(work, tmp_path, monkeypatch, capsys):
    """A head without weights gives its bias for every image."""
    run = shutil.copytree(work / "run", tmp_path / "run")
    encoder = build_encoder(BACKBONE, "none", 32, dim=8)
    torch.nn.init.zeros_(encoder.head[-1].weight)
    encoder.save(run / "encoder-oracle")
    report = evaluate(run, ks=(1,), device="cpu", precision="float32", resamples=0)
    name = "trained (oracle epoch)"
    assert report.collapsed[name] == ("photo", "drawing")
    assert "frozen" not in report.collapsed
    assert report.scores(name, "photo", "drawing")["P@1"].value == pytest.approx(1 / 3, rel=1e-12)
    sentence = f"{name}: all images of domain 'photo' and of domain 'drawing' have almost the same embedding (collapsed)"
    assert sentence in text_of(score_table(report), 200)
    monkeypatch.setattr(sys, "argv", ["ucdir", "evaluate", str(run), "--k", "1", "--device", "cpu", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["collapsed"][name] == ["photo", "drawing"]


def test_the_command_line_refuses_an_unknown_figure(work, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ucdir", "evaluate", str(work / "run"), "--figure", "F1"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert 'Choose from: "P", "capped", "mAP", "R"' in capsys.readouterr().err
