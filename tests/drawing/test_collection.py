from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ucdir.drawing.collection import draw_collections
from ucdir.drawing.kinds import KINDS
from ucdir.drawing.photo import photograph
from ucdir.drawing.sketch import line_drawing
from ucdir.errors import UsageError


def test_class_folders_of_real_images(tmp_path: Path) -> None:
    drawn = draw_collections(tmp_path / "out", images_per_class=6, seed=3, size=32)
    assert len(KINDS) >= 8
    for kind, counts in drawn.counts.items():
        for folder, suffix, form, count in zip(
            (drawn.photo, drawn.drawing), ("jpg", "png"), ("JPEG", "PNG"), counts, strict=True
        ):
            files = sorted((folder / kind).iterdir())
            assert [file.name for file in files] == [f"{number:04}.{suffix}" for number in range(1, count + 1)]
            with Image.open(files[0]) as image:
                assert (image.format, image.mode, image.size) == (form, "RGB", (32, 32))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_numbers_differ_between_kinds_and_domains(tmp_path: Path) -> None:
    counts = draw_collections(tmp_path / "out", images_per_class=6, seed=0, size=16).counts
    assert len(set(counts.values())) > 1
    assert any(photos != drawings for photos, drawings in counts.values())
    assert all(5 <= number <= 7 for pair in counts.values() for number in pair)


def test_same_seed_same_files_other_seed_other_files(tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_collections(tmp_path / name, images_per_class=1, seed=seed, size=16)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        contents.append([(file.relative_to(tmp_path / name), file.read_bytes()) for file in files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_stays_in_the_unit_square_and_varies(kind: str) -> None:
    rng = np.random.default_rng(0)
    specimens = [KINDS[kind](rng) for _ in range(20)]
    lines = np.concatenate([part.line for specimen in specimens for part in specimen])
    assert np.isfinite(lines).all()
    assert lines.min() > -0.06
    assert lines.max() < 1.06
    assert len({tuple(specimen[0].line.round(4).ravel()) for specimen in specimens}) > 1


def test_a_drawing_is_mostly_paper_and_a_photograph_is_not() -> None:
    rng = np.random.default_rng(1)
    for specimen in KINDS.values():
        drawing = np.asarray(line_drawing(specimen(rng), rng, 64).convert("L"), dtype=float)
        photo = np.asarray(photograph(specimen(rng), rng, 64).convert("L"), dtype=float)
        paper = np.median(drawing)
        assert (np.abs(drawing - paper) < 25).mean() > 0.6
        assert drawing.min() < paper - 60
        assert photo.std() > 5


@pytest.mark.parametrize("wrong", [{"images_per_class": 0}, {"size": 8}])
def test_too_small_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        draw_collections(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
