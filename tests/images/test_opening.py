"""Every kind of file a folder of images may hold, through the one opener."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ucdir.errors import ImageError
from ucdir.images.opening import AT_ONCE, MAX_PIXELS, decode, open_rgb

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)
ORIENTATION = 0x0112


def reason(source: object, **settings: int) -> str:
    with pytest.raises(ImageError) as caught:
        open_rgb(source, **settings)
    return caught.value.reason


def pixels(source: object) -> np.ndarray:
    image = open_rgb(source)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    return np.asarray(image)


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **settings)
    return data.getvalue()


# What opens


def test_a_jpeg_from_a_path_a_string_and_an_open_file_is_the_same(tmp_path, photo, save):
    path = save(photo(1), tmp_path / "Zoë 猫.jpg")
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert (pixels(path) == expected).all()
    assert (pixels(str(path)) == expected).all()
    assert (pixels(io.BytesIO(path.read_bytes())) == expected).all()
    with path.open("rb") as opened:
        assert (pixels(opened) == expected).all()


def test_a_file_is_closed_and_can_be_removed_after_opening(tmp_path, photo, save):
    path = save(photo(1), tmp_path / "a.png")
    image = open_rgb(path)
    path.unlink()
    assert image.getpixel((0, 0)) == photo(1).getpixel((0, 0))
    assert not image.info


KINDS = ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_under_a_wrong_suffix(kind, tmp_path, photo):
    if kind == "AVIF" and not (features.check("avif")):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(photo(2), kind))
    found = decode(path)
    assert found.format == kind
    assert np.abs(np.asarray(found.pixels, int) - np.asarray(photo(2), int)).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_brings_the_red_corner_to_the_top_left(kind, orientation, tmp_path):
    upright = np.full((40, 64, 3), 255, np.uint8)
    upright[:16, :16] = RED
    undo = {  # how a camera stores the upright picture under each orientation
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    path = tmp_path / f"a.{kind.lower()}"
    stored.save(path, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.abs(pixels(path).astype(int) - upright).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_upright(orientation, tmp_path, photo):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert pixels(io.BytesIO(encoded(photo(1), "PNG", exif=exif))).tolist() == np.asarray(photo(1)).tolist()


def test_damaged_exif_does_not_cost_the_image(photo):
    data = encoded(photo(1), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert pixels(io.BytesIO(data)).shape == (160, 160, 3)


def test_a_damaged_colour_profile_does_not_cost_the_image(photo):
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        assert pixels(io.BytesIO(encoded(photo(1), kind, icc_profile=b"no profile"))).shape == (160, 160, 3)


RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
RAMP_8 = np.rint(RAMP / 257)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind):
    found = pixels(io.BytesIO(encoded(Image.fromarray(np.rint(RAMP).astype(np.uint16)), kind)))
    assert np.abs(found[..., 0] - RAMP_8).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()


def test_sixteen_bit_big_endian_tiff():
    little = Image.fromarray(np.rint(RAMP).astype(np.uint16))
    big = Image.frombytes("I;16B", little.size, np.rint(RAMP).astype(">u2").tobytes())
    found = pixels(io.BytesIO(encoded(big, "TIFF")))
    assert np.abs(found[..., 0] - RAMP_8).max() <= 1


def test_a_dark_sixteen_bit_image_stays_dark():
    dark = Image.fromarray(np.full((8, 8), 257 * 3, np.uint16))
    for kind in ("PNG", "TIFF", "PPM"):
        assert (pixels(io.BytesIO(encoded(dark, kind))) == 3).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 100, 255]]), [0, 100, 255]),
        (np.float32([[0, 257, 65535]]), [0, 1, 255]),
        (np.float32([[-1, 0, 1]]), [0, 128, 255]),
        (np.float32([[0, 1e6, 2e6]]), [0, 128, 255]),
        (np.float32([[np.nan, np.inf, 1]]), [0, 255, 255]),
        (np.float32([[np.nan, np.nan, np.nan]]), [0, 0, 0]),
        (np.int32([[0, 100, 255]]), [0, 100, 255]),
        (np.int32([[0, 257, 65535]]), [0, 1, 255]),
        (np.int32([[-100, 0, 100]]), [0, 128, 255]),
        (np.int32([[7, 7, 7]]), [7, 7, 7]),
        (np.int32([[-7, -7, -7]]), [0, 0, 0]),
    ],
)
def test_wide_values_follow_the_stated_rule(values, expected):
    found = pixels(io.BytesIO(encoded(Image.fromarray(values), "TIFF")))
    assert found[0, :, 1].tolist() == expected


def test_deep_images_larger_than_what_is_scaled_at_once():
    values = np.random.default_rng(0).normal(size=(1030, 1050)).astype(np.float32)
    exact = np.rint((values.astype(np.float64) - values.min()) / (float(values.max()) - float(values.min())) * 255)
    assert values.size > AT_ONCE
    assert (pixels(io.BytesIO(encoded(Image.fromarray(values), "TIFF")))[..., 1] == exact).all()


def test_sixteen_bits_per_colour_keep_the_high_byte(tmp_path):
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF)
    assert pixels(io.BytesIO(png_file(header, zlib.compress(row))))[0, 0].tolist() == [0x12, 0x80, 0xFF]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(header: bytes, rows: bytes, *others: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(others) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = pixels(io.BytesIO(encoded(ink, kind))).mean((0, 1))
    assert np.abs(found - RED).max() < 6


def test_ycbcr_tiff_and_lab_tiff():
    red = Image.new("RGB", (16, 16), RED)
    ycc = pixels(io.BytesIO(encoded(red.convert("YCbCr"), "TIFF"))).mean((0, 1))
    assert np.abs(ycc - RED).max() < 4
    mid_grey = Image.new("LAB", (16, 16), (136, 128, 128))  # L* = 53.4, a* = b* = 0
    lab = pixels(io.BytesIO(encoded(mid_grey, "TIFF"))).mean((0, 1))
    assert np.abs(lab - 127).max() < 4


def half_transparent() -> Image.Image:
    image = Image.new("RGBA", (4, 2), (*RED, 255))
    image.paste((0, 0, 0, 0), (2, 0, 4, 2))
    return image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparency_is_laid_on_white(kind):
    settings = {"lossless": True} if kind == "WEBP" else {}
    found = pixels(io.BytesIO(encoded(half_transparent(), kind, **settings)))
    assert found[0, 0].tolist() == list(RED)
    assert found[1, 3].tolist() == list(WHITE)


def test_half_alpha_is_mixed_with_white():
    grey = pixels(io.BytesIO(encoded(Image.new("LA", (2, 2), (0, 128)), "PNG")))
    assert (grey == 127).all()
    assert (pixels(io.BytesIO(encoded(Image.new("RGBA", (2, 2), (0, 0, 255, 0)), "PNG"))) == 255).all()


def test_palette_with_and_without_transparency():
    palette = half_transparent().convert("RGB").quantize(4)
    assert pixels(io.BytesIO(encoded(palette, "PNG")))[0, 0].tolist() == list(RED)
    black_index = palette.getpixel((3, 0))
    found = pixels(io.BytesIO(encoded(palette, "PNG", transparency=black_index)))
    assert found[0, 0].tolist() == list(RED)
    assert found[0, 3].tolist() == list(WHITE)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", BLACK), ("L", 0), ("1", 0)])
def test_a_transparent_colour_in_a_png_without_alpha(mode, colour):
    image = Image.new(mode, (4, 4), colour)
    assert (pixels(io.BytesIO(encoded(image, "PNG", transparency=colour))) == 255).all()


def test_one_bit_and_two_pixels():
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    assert pixels(io.BytesIO(encoded(image, "PNG")))[0].tolist() == [list(BLACK), list(WHITE)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLACK, WHITE)]
    settings = {"lossless": True} if kind == "WEBP" else {}
    found = pixels(io.BytesIO(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **settings)))
    assert (found == RED).all()


def test_a_camera_file_of_several_pictures_is_read_as_its_first(photo):
    found = decode(io.BytesIO(encoded(photo(1), "MPO", save_all=True, append_images=[photo(2)])))
    assert found.format == "MPO"
    assert np.abs(np.asarray(found.pixels, int) - np.asarray(photo(1), int)).mean() < 12


# What is refused


def test_files_that_are_not_there(tmp_path):
    assert reason(tmp_path / "gone.jpg") == "file not found"
    assert reason(tmp_path / "gone" / "a.jpg") == "file not found"
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert reason(tmp_path / "link.jpg") == "broken link"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "links" in reason(tmp_path / "loop.jpg")
    assert reason(tmp_path / ("x" * 5000)) == "File name too long"
    assert "null" in reason(tmp_path / "a\0.jpg")


def test_things_that_are_not_files(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    assert reason(tmp_path / "a.jpg") == "a folder, not a file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"
    assert reason(Path("/dev/zero")) == "not a regular file"


def test_a_file_one_may_not_read(tmp_path, photo, save):
    path = save(photo(1), tmp_path / "a.png")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert reason(path) == "no permission to read it"


def test_permission_refused_by_the_system(tmp_path, photo, save, monkeypatch):
    path = save(photo(1), tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert reason(path) == "no permission to read it"


def test_an_error_names_the_file_and_the_reason(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"cannot use image '.*a\.jpg': empty file") as caught:
        open_rgb(path)
    assert caught.value.path == str(path)
    with pytest.raises(ImageError, match="cannot use image 'upload': empty file"):
        open_rgb(io.BytesIO(b""))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello", "not an image"),
        (b"\x00" * 5000, "not an image"),
        (b"\n <!DOCTYPE html><html>404", "not an image but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image but a git-lfs pointer"),
        (b"%PDF-1.7 ...", "not an image but a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JF", "truncated"),
        (b"\xff\xd8\xff\xd9" * 9, "begins like JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF89a\x01", "GIF"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00", "damaged AVIF"),
        (b"\x00\x00\x00\x1cftypheic\x00\x00", "HEIC or a video; convert it to JPEG"),
    ],
)
def test_what_is_not_an_image(data, expected):
    assert expected in reason(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "JPEG2000", "PPM"])
def test_half_a_file_is_truncated(kind, photo):
    data = encoded(photo(3), kind)
    assert reason(io.BytesIO(data[: len(data) // 2])) in (
        "truncated",
        *(f"damaged: {r}" for r in DECODERS_SAY),
    )


DECODERS_SAY = ("broken data stream when reading image file", "decoder error -2", "-2")


def test_truncated_is_the_word_for_the_common_formats(photo):
    for kind in ("JPEG", "PNG"):
        data = encoded(photo(3), kind)
        assert reason(io.BytesIO(data[: len(data) * 2 // 3])) == "truncated"


def test_too_many_pixels_are_refused_from_the_header_alone():
    header = struct.pack(">IIBBBBB", 12000, 9000, 8, 2, 0, 0, 0)
    bomb = png_file(header, b"there is no pixel to decode here")
    assert reason(io.BytesIO(bomb)) == "12000 x 9000 pixels is more than the limit of 89,000,000"
    worse = png_file(struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0), b"")
    assert "pixels" in reason(io.BytesIO(worse))
    assert MAX_PIXELS == 89_000_000


def test_the_limit_is_a_setting_and_inclusive(photo):
    data = encoded(photo(1), "PNG")
    assert open_rgb(io.BytesIO(data), max_pixels=160 * 160).size == (160, 160)
    assert reason(io.BytesIO(data), max_pixels=160 * 160 - 1) == "160 x 160 pixels is more than the limit of 25,599"


def test_an_image_without_pixels():
    empty = png_file(struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0), zlib.compress(b""))
    assert "0 x 5 pixels" in reason(io.BytesIO(empty)) or "damaged" in reason(io.BytesIO(empty))
    assert "not an image" in reason(io.BytesIO(b"P6 0 0 255\n")) or "0 x 0" in reason(io.BytesIO(b"P6 0 0 255\n"))


def test_a_text_bomb_in_a_png():
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    text = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"\x00" * 50_000_000))
    bomb = png_file(header, zlib.compress(b"\x00" * 4), text)
    assert reason(io.BytesIO(bomb)).startswith("damaged")


def test_a_jpeg_of_a_thousand_scans_is_refused_and_a_progressive_one_is_not(photo):
    """Each scan of ten bytes goes over all pixels: twenty megabytes of them would decode for hours."""
    whole = encoded(photo(1).convert("L"), "JPEG", progressive=True, exif=Image.Exif(), comment=b"\xff\xda" * 500)
    assert whole.count(b"\xff\xda") > 500
    assert pixels(io.BytesIO(whole + b"\xff\xda" * 500)).shape == (160, 160, 3)
    last = whole.rindex(b"\xff\xda")
    bomb = whole[:last] + whole[last : last + 10] * 1000 + whole[-2:]
    assert reason(io.BytesIO(bomb)) == "damaged: it is a JPEG in more than 100 scans"


@pytest.mark.parametrize("kind", [b"P1", b"P2", b"P3"])
def test_a_text_image_full_of_comments_is_refused(kind):
    """Pillow takes comments away one by one, each time copying what is left."""
    assert reason(io.BytesIO(kind + b" 2 2 255\n" + b"#\n" * 101)) == "damaged: it has more than 100 comments"
    assert pixels(io.BytesIO(b"P2\n# made by hand\n2 1 255\n0 255\n"))[0, :, 0].tolist() == [0, 255]


# Whatever the bytes are


def fuzzed(data: bytes, rng: np.random.Generator) -> bytes:
    kind = rng.integers(3)
    if kind == 0:
        return data[: rng.integers(len(data))]
    changed = bytearray(data)
    place = rng.integers(len(data) if kind == 1 else min(len(data), 200), size=rng.integers(1, 20))
    for at in place:
        changed[at] = rng.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_damaged_bytes_open_or_raise_an_image_error(kind, photo, capfd):
    settings = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    if kind in ("JPEG", "PNG", "WEBP"):
        settings["exif"] = exif
    data = encoded(photo(4, side=48), kind, **settings)
    rng = np.random.default_rng(0)
    reasons = []
    for _ in range(250):
        try:
            image = open_rgb(io.BytesIO(fuzzed(data, rng)), max_pixels=4_000_000)
        except ImageError as error:
            reasons.append(error.reason)
        else:
            assert image.mode == "RGB"
    assert len(reasons) > 20
    assert all(0 < len(reason) < 120 for reason in reasons)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == "" or kind == "TIFF"  # libtiff itself writes to stderr


@pytest.mark.parametrize("rule", ["error", "always", "default"])
def test_no_warning_leaks_and_none_becomes_a_refusal(rule, photo):
    odd_exif = encoded(photo(1), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x09\x00\x12")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(rule)
        open_rgb(io.BytesIO(odd_exif))
        reason(io.BytesIO(png_file(struct.pack(">IIBBBBB", 12000, 9000, 8, 2, 0, 0, 0), b"x")))
    assert not seen


def test_nothing_is_said_on_the_terminal(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_file(struct.pack(">IIBBBBB", 12000, 9000, 8, 2, 0, 0, 0), b"x"))
    program = (
        "import sys\nfrom ucdir.images.opening import open_rgb\nfrom ucdir.errors import ImageError\n"
        "try:\n    open_rgb(sys.argv[1])\nexcept ImageError as error:\n    print(error.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "12000 x 9000 pixels is more than the limit of 89,000,000\n"
    assert done.stderr == ""


def test_threads_give_the_same_pixels(tmp_path, photo, save):
    paths = [save(photo(seed), tmp_path / f"{seed}.jpg") for seed in range(8)]
    alone = [open_rgb(path).tobytes() for path in paths]
    start = threading.Barrier(4)

    def read(worker: int) -> list[bytes]:
        start.wait()
        return [open_rgb(path).tobytes() for path in paths]

    with ThreadPoolExecutor(4) as pool:
        assert all(found == alone for found in pool.map(read, range(4)))
