"""Training views and the evaluation view."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from reference import views as pillow
from torchvision.transforms.v2 import functional as tv

from ucdir.images.cpu_views import render
from ucdir.images.device_views import Crop, render_crops
from ucdir.images.evaluation_view import evaluation_view
from ucdir.images.training_views import ViewDraw, blur_weights, draw_crop, draw_jitter, draw_view, useful_side

Draw = Callable[..., Image.Image]


def rendered(image: Image.Image, draw: ViewDraw, size: int) -> np.ndarray:
    """On the CPU."""
    view = np.empty((3, size, size), np.uint8)
    render(np.array(image), draw, view)
    return view


def on_device(images: Sequence[Image.Image], draws: Sequence[ViewDraw], size: int, device: str = "cpu") -> np.ndarray:
    crops = [Crop.of(np.array(image), draw) for image, draw in zip(images, draws, strict=True)]
    return render_crops(crops, size, torch.device(device)).cpu().numpy()


def training_view(image: Image.Image, size: int, rng: random.Random, **ranges: float) -> torch.Tensor:
    return torch.from_numpy(rendered(image, draw_view(*image.size, rng, **ranges), size))


def whole(image: Image.Image) -> tuple[int, int, int, int]:
    return (0, 0, *image.size)


def drawn_views(image: Image.Image, number: int, size: int = 32) -> list[torch.Tensor]:
    return [training_view(image, size, random.Random(seed)) for seed in range(number)]


def coordinates(width: int, height: int) -> Image.Image:
    """Red tells the column and green the row, both from 0 to 255."""
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([across, down, np.zeros((height, width))], axis=2).round().astype(np.uint8))


# Evaluation


@pytest.mark.parametrize("shape", [(64, 64), (200, 50), (50, 200), (1, 1), (300, 7), (31, 33)])
@pytest.mark.parametrize("size", [16, 32, 65])
def test_evaluation_views_have_the_size_asked_for(photo: Draw, shape: tuple[int, int], size: int) -> None:
    view = evaluation_view(photo(0).resize(shape), size)
    assert view.shape == (3, size, size)
    assert view.dtype == np.uint8


@pytest.mark.parametrize("shape", [(64, 64), (201, 50), (50, 207), (101, 7), (31, 33)])
def test_evaluation_is_what_torchvision_makes(photo: Draw, shape: tuple[int, int]) -> None:
    image = photo(0).resize(shape)
    scaled = tv.resize(image, [round(33 * 8 / 7)], tv.InterpolationMode.BILINEAR)
    expected = tv.pil_to_tensor(tv.center_crop(scaled, [33, 33]))
    assert torch.equal(torch.from_numpy(evaluation_view(image, 33)), expected)


def test_evaluation_crops_the_centre() -> None:
    """Shorter side to 8/7 of the size, then the middle: of a square the middle 7/8, of a wide image the middle too."""
    view = torch.from_numpy(evaluation_view(coordinates(320, 320), 56)).float()
    margin = 255 / 16
    for channel, axis in ((0, 1), (1, 0)):
        line = view[channel].mean(dim=1 - axis)
        assert float(line[0]) == pytest.approx(margin, abs=4)
        assert float(line[-1]) == pytest.approx(255 - margin, abs=4)
    wide = torch.from_numpy(evaluation_view(coordinates(640, 320), 56)).float()
    assert float(wide[0].mean()) == pytest.approx(127.5, abs=2)
    assert float(wide[0, :, -1].mean() - wide[0, :, 0].mean()) == pytest.approx(255 * 7 / 16, abs=6)


def test_evaluation_is_the_same_each_time(photo: Draw) -> None:
    assert np.array_equal(evaluation_view(photo(1), 32), evaluation_view(photo(1), 32))


# Training


@pytest.mark.parametrize("shape", [(64, 64), (200, 20), (20, 200), (1, 1), (1, 90), (3, 2)])
def test_training_views_have_the_size_asked_for(photo: Draw, shape: tuple[int, int]) -> None:
    for view in drawn_views(photo(0).resize(shape), 12, 24):
        assert view.shape == (3, 24, 24)
        assert view.dtype == torch.uint8


def test_the_same_seed_gives_the_same_view(photo: Draw) -> None:
    image = photo(2)
    for seed in (0, "text", "(0, 1)/2/3"):
        one, other = (training_view(image, 32, random.Random(seed)) for _ in range(2))
        assert torch.equal(one, other)


def test_other_seeds_give_other_views(photo: Draw) -> None:
    views = drawn_views(photo(3), 20)
    assert all(not torch.equal(one, other) for i, one in enumerate(views) for other in views[:i])


def test_two_views_from_one_generator_differ(photo: Draw) -> None:
    rng = random.Random(0)
    assert not torch.equal(training_view(photo(4), 32, rng), training_view(photo(4), 32, rng))


def test_the_image_is_left_alone(photo: Draw) -> None:
    image = photo(5)
    before = np.asarray(image).copy()
    drawn_views(image, 10)
    assert np.array_equal(np.asarray(image), before)


def test_nothing_but_the_given_generator_is_used(photo: Draw) -> None:
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()
    drawn_views(photo(6), 5)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.parametrize(("width", "height"), [(256, 256), (400, 300), (300, 400)])
def test_crops_cover_a_fifth_to_all_of_the_area(width: int, height: int) -> None:
    """Sides 3:4 to 4:3, anywhere inside. Read from an image whose colours are its coordinates.

    Large crops of a shape that does not fit are drawn again, so the mean area lies below 0.6.
    """
    image = coordinates(width, height)
    areas, ratios, centres = [], [], []
    for seed in range(300):
        draw = ViewDraw(draw_crop(width, height, random.Random(seed)))
        crop = rendered(image, draw, 64).transpose(1, 2, 0).astype(float)
        steps = 64 / 63  # from the middle of the first pixel to the middle of the last
        wide = np.ptp(crop[32, :, 0]) * steps / 255
        high = np.ptp(crop[:, 32, 1]) * steps / 255
        areas.append(wide * high)
        ratios.append(wide * width / (high * height))
        centres.append(crop[:, :, :2].mean(axis=(0, 1)) / 255)
    assert 0.17 < min(areas) < 0.3
    assert 0.8 < max(areas) < 1.05
    assert 0.46 < np.mean(areas) < 0.6
    assert min(ratios) > 0.7
    assert max(ratios) < 1.43
    assert np.abs(np.mean(centres, axis=0) - 0.5).max() < 0.05
    assert np.std(centres, axis=0).min() > 0.05


def test_a_shape_that_no_crop_fits_gives_its_centre() -> None:
    """A strip 20 times as wide as high: 20 % of it is wider than 4:3 allows, so the middle piece of 4:3 is taken."""
    draw = ViewDraw(draw_crop(2000, 100, random.Random(0)))
    crop = rendered(coordinates(2000, 100), draw, 32).transpose(1, 2, 0).astype(float)
    assert crop[:, :, 0].mean() / 255 == pytest.approx(0.5, abs=0.01)
    assert np.ptp(crop[16, :, 0]) * 32 / 31 / 255 * 2000 == pytest.approx(133, abs=12)


def test_jitter_stays_within_its_ranges() -> None:
    """A plain grey image shows brightness alone: contrast, saturation and hue leave it as it is."""
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    draws = [ViewDraw(whole(grey), draw_jitter(random.Random(seed))) for seed in range(300)]
    values = [int(rendered(grey, draw, 4)[0, 0, 0]) for draw in draws]
    assert 59 <= min(values) <= 63
    assert 137 <= max(values) <= 141
    assert 97 < np.mean(values) < 103


def test_jitter_turns_hues_by_a_tenth_at_most() -> None:
    red = Image.new("RGB", (4, 4), (120, 70, 70))  # nothing is clipped, which would turn the hue as well
    draws = [ViewDraw(whole(red), draw_jitter(random.Random(seed))) for seed in range(300)]
    views = [Image.fromarray(rendered(red, draw, 4).transpose(1, 2, 0)) for draw in draws]
    hues = [view.convert("HSV").getpixel((0, 0))[0] for view in views]
    turns = [(hue + 128) % 256 - 128 for hue in hues]
    assert -28 <= min(turns) < -20
    assert 20 < max(turns) <= 28


def test_one_view_in_five_is_grey(photo: Draw) -> None:
    """Flips and blur keep grey grey; jitter almost never makes a colourful picture grey."""
    views = drawn_views(photo(7), 400, 8)
    grey = sum(bool((view[0] == view[1]).all() and (view[1] == view[2]).all()) for view in views)
    assert 0.14 < grey / 400 < 0.27


def test_one_view_in_two_is_flipped() -> None:
    """Red rises to the right in the image; in a flipped view it falls."""
    image = Image.fromarray(np.asarray(coordinates(96, 96))[:, :, [0, 0, 0]])
    falling = 0
    for view in drawn_views(image, 400, 16):
        line = view.float().mean(dim=(0, 1))
        falling += bool(line[0] > line[-1])
    assert 0.42 < falling / 400 < 0.58


def test_one_view_in_two_is_blurred() -> None:
    """A fine checkerboard loses its contrast: count views without jitter's help by their sharpest neighbour step."""
    board = Image.fromarray(((np.indices((64, 64)).sum(axis=0) // 8 % 2) * 255).astype(np.uint8)).convert("RGB")
    steps = [view.float().diff(dim=2).abs().amax() for view in drawn_views(board, 400, 64)]
    soft = sum(float(step) < 90 for step in steps)
    assert 0.2 < soft / 400 < 0.6


# Other ranges than the paper's


def test_the_max_blur_sigma_can_be_chosen(photo: Draw) -> None:
    """Without jitter's draws changing, a smaller blur leaves views sharper, never softer."""
    board = Image.fromarray(((np.indices((64, 64)).sum(axis=0) // 8 % 2) * 255).astype(np.uint8)).convert("RGB")

    def sharpness(strongest: float) -> list[float]:
        views = (training_view(board, 64, random.Random(seed), max_blur_sigma=strongest) for seed in range(60))
        return [float(view.float().diff(dim=2).abs().amax()) for view in views]

    weak, strong = sharpness(0.1), sharpness(4.0)
    assert all(one >= other - 1 for one, other in zip(weak, strong, strict=True))
    assert sum(weak) > 1.2 * sum(strong)


def test_the_defaults_are_the_papers(photo: Draw) -> None:
    given, default = (training_view(photo(8), 32, random.Random(3), **ranges) for ranges in ({"max_blur_sigma": 2.0}, {}))
    assert torch.equal(given, default)


# Draws


def test_a_seed_means_what_it_meant_in_the_first_release() -> None:
    """A resumed run sees the pictures it would have seen: the order of draws is part of what a seed means."""
    draw = draw_view(300, 200, random.Random(2))
    changes = (("brightness", 0.7697750485), ("contrast", 0.6285875534), ("saturation", 1.144996948), ("hue", 0.0999437592))
    expected = ViewDraw((43, 39, 151, 176), changes, grey=False, blur=0.6096574091, flip=True)
    assert (draw.box, draw.grey, draw.flip) == (expected.box, expected.grey, expected.flip)
    assert [kind for kind, _ in draw.jitter] == [kind for kind, _ in expected.jitter]
    assert [amount for _, amount in draw.jitter] == pytest.approx([amount for _, amount in expected.jitter])
    assert draw.blur == pytest.approx(expected.blur)


@pytest.mark.parametrize("size", [16, 128, 224])
def test_no_crop_of_a_useful_side_is_enlarged(size: int) -> None:
    side = useful_side(size)
    boxes = [draw_crop(side, side, random.Random(seed)) for seed in range(3000)]
    smallest = min(min(right - left, bottom - top) for left, top, right, bottom in boxes)
    assert size <= smallest < 1.1 * size


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.7, 2.0, 5.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    """Its weights are one in sum and spread as far as asked for, but for the ends that move nothing by half a level."""
    half = blur_weights(sigma).astype(float)
    assert 2 * half.sum() - half[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(half) <= 0).all()
    assert 2 * (half * np.arange(len(half)) ** 2).sum() == pytest.approx(sigma**2, rel=0.06, abs=0.02)


# The same picture as Pillow's


def close(view: np.ndarray, expected: np.ndarray, mean: float, most: float) -> None:
    difference = np.abs(view.astype(float) - expected)
    assert difference.mean() <= mean
    assert difference.max() <= most


BOX = (13, 20, 140, 151)
CHANGED = {
    "crop": (ViewDraw(BOX), 0.01, 1),
    "enlarged crop": (ViewDraw((40, 60, 60, 83)), 0.02, 1),
    "whole": (ViewDraw((0, 0, 160, 160)), 0.01, 1),
    "flip": (ViewDraw(BOX, flip=True), 0.01, 1),
    "darker": (ViewDraw(BOX, (("brightness", 0.63),)), 0.6, 2),
    "brighter": (ViewDraw(BOX, (("brightness", 1.37),)), 0.6, 2),
    "less contrast": (ViewDraw(BOX, (("contrast", 0.63),)), 0.6, 2),
    "more contrast": (ViewDraw(BOX, (("contrast", 1.37),)), 0.6, 2),
    "paler": (ViewDraw(BOX, (("saturation", 0.63),)), 0.6, 2),
    "more colourful": (ViewDraw(BOX, (("saturation", 1.37),)), 0.6, 2),
    "hue forwards": (ViewDraw(BOX, (("hue", 25.01 / 255),)), 1.0, 15),
    "hue backwards": (ViewDraw(BOX, (("hue", -25.01 / 255),)), 1.0, 15),
    "grey": (ViewDraw(BOX, grey=True), 0.01, 1),
    "hardly a blur": (ViewDraw(BOX, blur=0.12), 0.6, 3),
    "some blur": (ViewDraw(BOX, blur=0.8), 0.6, 6),
    "strong blur": (ViewDraw(BOX, blur=2.0), 0.8, 12),
    "very strong blur": (ViewDraw(BOX, blur=5.0), 1.8, 20),  # Pillow repeats the edge before each of three boxes
}


@pytest.mark.parametrize("size", [33, 64])
@pytest.mark.parametrize("name", CHANGED)
def test_each_change_is_pillows(photo: Draw, name: str, size: int) -> None:
    draw, mean, most = CHANGED[name]
    image = photo(11)
    expected = pillow.view(image, size, **dataclasses.asdict(draw))
    close(rendered(image, draw, size), expected, mean, most)
    close(on_device([image], [draw], size)[0], expected, mean, most)


@pytest.fixture
def many(photo: Draw) -> tuple[list[Image.Image], list[ViewDraw]]:
    """240 draws of photographs of many shapes, one of them a strip."""
    shapes = [(160, 160), (90, 160), (160, 71), (33, 40), (700, 20), (1, 1)]
    images = [photo(number).resize(shapes[number % len(shapes)]) for number in range(240)]
    return images, [draw_view(*image.size, random.Random(seed)) for seed, image in enumerate(images)]


def test_whole_views_are_pillows(many: tuple[list[Image.Image], list[ViewDraw]]) -> None:
    """Pillow rounds down after each change of colour, which makes a view a level darker on average; nothing here does."""
    images, draws = many
    expected = np.stack([pillow.view(i, 40, **dataclasses.asdict(d)) for i, d in zip(images, draws, strict=True)]).astype(float)
    ours = np.stack([rendered(image, draw, 40) for image, draw in zip(images, draws, strict=True)]).astype(float)
    assert np.abs(ours - expected).mean() < 1.5
    assert np.abs(ours - expected).mean(axis=(1, 2, 3)).max() < 3.5
    assert 0 < (ours - expected).mean() < 1.2
    assert ours.std() == pytest.approx(expected.std(), rel=0.01)
    assert ours.std(axis=(2, 3)).mean() == pytest.approx(expected.std(axis=(2, 3)).mean(), rel=0.02)


@pytest.mark.parametrize("size", [24, 40])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_renders_what_the_cpu_renders(many: tuple[list[Image.Image], list[ViewDraw]], size: int, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    images, draws = many
    expected = np.stack([rendered(image, draw, size) for image, draw in zip(images, draws, strict=True)]).astype(float)
    difference = np.abs(on_device(images, draws, size, device) - expected)
    assert difference.mean() < 0.05
    assert difference.mean(axis=(1, 2, 3)).max() < 0.5
    assert (difference > 1).mean() < 0.005


def test_groups_change_nothing(many: tuple[list[Image.Image], list[ViewDraw]], monkeypatch: pytest.MonkeyPatch) -> None:
    """However few fit into memory together, even none; the order stays."""
    images, draws = many
    together = on_device(images, draws, 24)
    for most in (1, 50_000, 10**9):
        monkeypatch.setattr("ucdir.images.device_views.MAX_PIXELS_ON_CPU", most)
        difference = np.abs(on_device(images, draws, 24).astype(int) - together)
        assert difference.max() <= 1
        assert difference.mean() < 0.01


def test_no_crops_give_no_views() -> None:
    assert on_device([], [], 24).shape == (0, 3, 24, 24)


def test_threads_render_what_one_does(photo: Draw) -> None:
    """Each thread has its own canvas, whatever sizes come in turn."""
    jobs = [(photo(seed), draw_view(160, 160, random.Random(seed)), 24 + 8 * (seed % 3)) for seed in range(60)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: rendered(*job), jobs))
    assert all(np.array_equal(view, rendered(*job)) for view, job in zip(together, jobs, strict=True))
