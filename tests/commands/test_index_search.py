"""`index` and `search`: from folders of images to answers, in Python and on the command line."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from ucdir.cli import main
from ucdir.commands.index import index
from ucdir.commands.search import search
from ucdir.embedding.compute import Compute
from ucdir.embedding.embed import embed
from ucdir.errors import ImageError, UcdirError, UsageError
from ucdir.gallery.folder import Gallery
from ucdir.model.encoder import Encoder, build_encoder
from ucdir.report.search_page import search_page, write_search_page

pytestmark = pytest.mark.slow


def save_picture(file, number, background="white"):
    image = Image.new("RGB", (48, 36), background)
    pen = ImageDraw.Draw(image)
    pen.ellipse((number, number, 14 + 3 * number, 12 + 2 * number), fill=(20 * number, 250 - 20 * number, 128))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


@pytest.fixture
def run_command(monkeypatch, capsys):
    """run_command(*arguments) -> exit code, stdout, stderr of the command line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ucdir", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoders") / "run" / "encoder"
    build_encoder("torchvision/mobilenet_v2", "none", 48).save(folder)
    return folder


@pytest.fixture
def collection(tmp_path):
    """Two domains: left with six images in two class folders, right with three; one of left is broken."""
    for number in range(6):
        save_picture(tmp_path / "left" / ("cat" if number < 3 else "dog") / f"{number}.png", number)
    for number in range(3):
        save_picture(tmp_path / "right" / f"{number}.png", number, background="navy")
    (tmp_path / "left" / "dog" / "broken.png").write_bytes(b"no image at all")
    return tmp_path


@pytest.fixture
def gallery(collection, encoder):
    index(encoder, [str(collection / "left"), str(collection / "right")], collection / "gallery", device="cpu")
    return collection / "gallery"


def test_a_gallery_holds_what_was_read(collection, encoder):
    out = collection / "gallery"
    sources = [str(collection / "left"), f"other={collection / 'right'}"]
    result = index(encoder, sources, out, device="cpu", precision="float32")
    assert (result.count, result.domains) == (9, (("left", 6), ("other", 3)))
    assert [Path(error.path).name for error in result.unreadable] == ["broken.png"]
    read = Gallery.load(out)
    first = read.image(0)
    assert first.path == collection / "left" / "cat" / "0.png"
    assert (first.width, first.height, first.class_name) == (48, 36, "cat")
    assert first.bytes == first.path.stat().st_size
    assert read.image(8).class_name is None
    assert read.info.unreadable[0]["path"] == str(collection / "left" / "dog" / "broken.png")
    assert "image" in read.info.unreadable[0]["reason"]
    paths = [read.image(row).path for row in range(len(read))]
    again = embed(Encoder.load(encoder), paths, Compute(torch.device("cpu"), "float32"))
    torch.testing.assert_close(torch.from_numpy(read.embeddings.copy()), again.rows, rtol=1e-4, atol=1e-5)


def test_every_indexed_image_finds_itself(collection, gallery):
    result = search(gallery, collection / "left", k=2, device="cpu", precision="float32")
    assert len(result.queries) == 6
    assert [Path(error.path).name for error in result.unreadable] == ["broken.png"]
    for answered in result.queries:
        assert answered.hits[0].image.path == answered.query
        assert answered.hits[0].similarity == pytest.approx(1, abs=1e-3)
        assert answered.hits[0].similarity >= answered.hits[1].similarity


def test_one_domain_of_a_gallery(collection, gallery):
    (answered,) = search(gallery, collection / "left" / "cat" / "0.png", k=50, domain="right", device="cpu").queries
    assert [hit.image.domain for hit in answered.hits] == ["right"] * 3
    assert len({hit.image.path for hit in answered.hits}) == 3
    with pytest.raises(UsageError, match="no domain 'up'"):
        search(gallery, collection / "left", domain="up", device="cpu")


def test_k_above_the_gallery_gives_all_and_k_below_one_is_refused(collection, gallery):
    query = collection / "right" / "1.png"
    assert len(search(gallery, query, k=100, device="cpu").queries[0].hits) == 9
    with pytest.raises(UsageError, match="k=0"):
        search(gallery, query, k=0, device="cpu")


def test_queries_that_cannot_be_used_are_named(collection, gallery):
    with pytest.raises(UcdirError, match=r"query not found: '.*nothing\.png'"):
        search(gallery, collection / "nothing.png", device="cpu")
    with pytest.raises(ImageError, match="broken"):
        search(gallery, collection / "left" / "dog" / "broken.png", device="cpu")
    for name in ("1.png", "2.png"):
        (collection / "bad").mkdir(exist_ok=True)
        (collection / "bad" / name).write_bytes(b"x")
    with pytest.raises(UcdirError, match="none of the 2 query images"):
        search(gallery, collection / "bad", device="cpu")


def test_a_run_folder_stands_for_its_last_encoder(collection, encoder):
    result = index(encoder.parent, [str(collection / "right")], collection / "g", device="cpu")
    assert Gallery.load(Path(result.gallery)).info.encoder_path == str(encoder)


def test_an_encoder_that_moved_is_asked_for(collection, encoder):
    shutil.copytree(encoder, collection / "moved")
    index(collection / "moved", [str(collection / "right")], collection / "g", device="cpu")
    (collection / "moved").rename(collection / "elsewhere")
    query = collection / "right" / "0.png"
    with pytest.raises(UcdirError, match=r"no longer at '.*moved'. Give its new location .--encoder"):
        search(collection / "g", query, device="cpu")
    found = search(collection / "g", query, encoder=collection / "elsewhere", device="cpu")
    assert found.queries[0].hits[0].image.path == query


def test_another_encoder_is_refused(collection, gallery):
    torch.manual_seed(1)
    build_encoder("torchvision/mobilenet_v2", "none", 48).save(collection / "other")
    with pytest.raises(UcdirError, match=r"was indexed with encoder .*but '.*other' is"):
        search(gallery, collection / "right", encoder=collection / "other", device="cpu")


def test_nothing_is_written_when_indexing_fails(collection, encoder):
    (collection / "bad").mkdir()
    (collection / "bad" / "1.png").write_bytes(b"x")
    before = sorted(collection.iterdir())
    with pytest.raises(UcdirError, match=r"none of the 1 images can be read .*, so nothing was written"):
        index(encoder, [str(collection / "bad")], collection / "g", device="cpu")
    with pytest.raises(UcdirError, match="exists and is not a gallery"):
        index(encoder, [str(collection / "right")], collection / "left", device="cpu", overwrite=True)
    with pytest.raises(UcdirError, match="encoder not found"):
        index(collection / "no", [str(collection / "right")], collection / "g", device="cpu")
    with pytest.raises(UcdirError, match="neither a run nor an encoder folder"):
        index(collection / "left", [str(collection / "right")], collection / "g", device="cpu")
    assert sorted(collection.iterdir()) == before


def test_the_page_stands_alone_and_survives_odd_names_and_lost_images(collection, gallery):
    odd = collection / "queries" / '<script>alert("1")&.png'
    save_picture(odd, 2)
    save_picture(collection / "queries" / "second.png", 4)
    (collection / "left" / "cat" / "2.png").unlink()
    shop = gallery.rename(collection / '<script>shop"')
    result = search(shop, collection / "queries", k=9, device="cpu")
    write_search_page(result, collection / "page.html")
    page = (collection / "page.html").read_text(encoding="utf-8")
    assert page == search_page(result)
    assert page.count("Search in &lt;script&gt;shop&#34;") == 2
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;1&#34;)&amp;.png" in page
    assert page.count("<section") == 2
    assert page.count("no picture:") == 2
    assert page.count("data:image/jpeg;base64,") == 2 + 16
    references = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert all(reference.startswith("data:image/jpeg") for reference in references)
    assert "url(" not in page
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)


def test_the_command_line_indexes_and_searches(collection, encoder, run_command):
    out, page = collection / "g", collection / "p.html"
    exactly = ("--device", "cpu", "--precision", "float32")
    code, printed, said = run_command("index", encoder, collection / "left", "--out", out, *exactly)
    assert code == 0, said
    assert "6 images (left 6), 1 unreadable" in printed
    assert f"ucdir search {out}" in printed
    query = collection / "left" / "dog" / "4.png"
    code, printed, said = run_command("search", out, query, "-k", 2, "--html", page, "--json", *exactly)
    assert code == 0, said
    document = json.loads(printed)
    assert document["queries"][0]["hits"][0]["path"] == str(query)
    assert document["queries"][0]["hits"][0]["rank"] == 1
    assert page.is_file()
    code, printed, said = run_command("search", out, query, "-k", 2, *exactly)
    assert code == 0, said
    assert "similarity" in printed
    assert "4.png" in printed


def test_more_hits_than_there_are_images_are_remarked(collection, gallery, run_command):
    query = collection / "right" / "1.png"
    for given, remark in (((10,), f"--k 10 is more than the 9 images of {gallery} that were searched.\n"), ((9,), "")):
        for more in ((), ("--json",)):
            code, _, said = run_command("search", gallery, query, "--k", *given, *more, "--device", "cpu")
            assert (code, said) == (0, remark)
    _, _, said = run_command("search", gallery, query, "--k", 4, "--domain", "right", "--device", "cpu")
    assert said.startswith("--k 4 is more than the 3 images")


def test_embed_and_index_say_which_encoder_of_a_run_they_take(collection, encoder, run_command):
    run = collection / "run"
    for name in ("encoder", "encoder-label-free"):
        shutil.copytree(encoder, run / name)
    told = f"encoder: {run / 'encoder-label-free'}, the epoch chosen without labels ({run / 'encoder'} is the last)"
    for command, more in (("index", ("--no-export",)), ("embed", ())):
        code, _, said = run_command(command, run, collection / "right", "--out", collection / command, *more)
        assert (code, said.splitlines()[0]) == (0, told)
    code, _, said = run_command("embed", run / "encoder", collection / "right", "--out", collection / "named")
    assert (code, said) == (0, "")


def test_the_command_line_refuses_in_one_sentence(collection, gallery, encoder, run_command):
    code, printed, said = run_command("index", encoder, f"left={collection / 'right'}", "--out", gallery)
    assert (code, printed) == (2, "")
    assert said.startswith("ucdir: domain 'left' of the gallery follows")
    assert said.count("\n") == 1
    code, printed, said = run_command("search", gallery, collection / "left", "-k", 0)
    assert (code, printed) == (2, "")
    assert "k=0" in said


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"as_domain": "left"}, "--as left: .*does not distinguish domains"),
        ({"views": 1}, "--views 1: .*from one view"),
    ],
)
def test_what_only_encoders_that_know_domains_read_is_refused_with_others(encoder, collection, tmp_path, asked, reason):
    with pytest.raises(UsageError, match=reason):
        index(encoder, [str(tmp_path / "right")], tmp_path / "gallery", export=False, **asked)
    assert not (tmp_path / "gallery").exists()


def test_images_that_cannot_be_told_apart_are_spoken_of(encoder, tmp_path):
    for number in range(4):
        save_picture(tmp_path / "same" / f"{number}.png", 2)
    said = []
    index(encoder, [str(tmp_path / "same")], tmp_path / "g", device="cpu", export=False, log=said.append)
    assert len(said) == 1
    assert said[0].startswith("warning: all images of domain 'same' have almost the same embedding")
