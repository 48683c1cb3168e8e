from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from aimcore.contracts.errors import InvalidValue
from aimcore.data.transforms import (
    Crop,
    CropDraws,
    Jitter,
    normalize,
    render_crop,
    render_evaluation,
    to_channels,
    to_unit,
)
from aimcore.experiment import IMAGENET_MEAN, IMAGENET_STD, Augmentation

TABLE_10 = Augmentation()
JITTER = Augmentation(color_jitter=(0.4, 0.4, 0.2, 0.1))


def draw_crops(
    augmentation: Augmentation, seed: int, sample_numbers: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> list[Crop]:
    draws = CropDraws.of(augmentation, seed, sample_numbers)
    return [draws.crop(place, *size) for place, size in enumerate(sizes)]


def gradient(height: int, width: int) -> torch.Tensor:
    """Red grows downwards, green to the right, blue is constant."""
    red = torch.linspace(0, 255, height)[:, None].expand(height, width)
    green = torch.linspace(0, 255, width)[None].expand(height, width)
    return torch.stack([red, green, torch.full((height, width), 128.0)]).round().to(torch.uint8)


def test_a_crop_depends_on_seed_and_number_alone() -> None:
    together = draw_crops(JITTER, 5, range(100), [(32, 48)] * 100)
    alone = [draw_crops(JITTER, 5, [number], [(32, 48)])[0] for number in range(100)]
    assert together == alone
    assert together != draw_crops(JITTER, 6, range(100), [(32, 48)] * 100)


def test_crops_stay_inside_the_image_and_within_the_ranges() -> None:
    crops = draw_crops(TABLE_10, 0, range(2000), [(200, 300)] * 2000)
    areas = np.array([crop.height * crop.width for crop in crops]) / 60_000
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert all(0 <= c.top <= 200 - c.height and 0 <= c.left <= 300 - c.width for c in crops)
    # Rounding to whole pixels moves a side by half a pixel of at least 109.
    assert areas.min() > 0.4 * 0.99
    assert ratios.min() > 0.75 * 0.99
    assert ratios.max() < 4 / 3 * 1.01


def test_crops_are_distributed_as_torchvisions() -> None:
    torchvisions = v2.RandomResizedCrop(8, scale=(0.4, 1.0))
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [torchvisions.make_params([image]) for _ in range(4000)]
    theirs = np.array([[d["top"], d["left"], d["height"], d["width"]] for d in drawn])
    ours = np.array(
        [[c.top, c.left, c.height, c.width] for c in draw_crops(TABLE_10, 1, range(4000), [(60, 80)] * 4000)]
    )
    # Standard error of a difference of means; four of them are a rare accident.
    error = np.sqrt(theirs.var(0) / 4000 + ours.var(0) / 4000)
    assert (abs(theirs.mean(0) - ours.mean(0)) < 4 * error).all()
    assert np.allclose(theirs.std(0), ours.std(0), rtol=0.06)


def test_an_image_too_narrow_for_any_crop_gives_its_centre() -> None:
    # 10 x 1000 px: at least 40 % of the area in a ratio of at most 4/3 would be 55 px high.
    (crop,) = draw_crops(TABLE_10, 0, [3], [(10, 1000)])
    assert crop.height == 10
    assert crop.width == 13
    assert (crop.top, crop.left) == (0, 493)


def test_half_of_the_crops_are_flipped() -> None:
    flips = sum(crop.flip for crop in draw_crops(TABLE_10, 0, range(4000), [(8, 8)] * 4000))
    # Four standard deviations of a fair coin: sqrt(4000) / 2 * 4.
    assert abs(flips - 2000) < 127
    never = Augmentation(flip_probability=0.0)
    assert not any(crop.flip for crop in draw_crops(never, 0, range(100), [(8, 8)] * 100))


def test_a_crop_shows_its_rectangle_flipped() -> None:
    image = gradient(64, 64)
    plain = render_crop(image, Crop(8, 16, 32, 24), 24)
    flipped = render_crop(image, Crop(8, 16, 32, 24, flip=True), 24)
    assert torch.equal(flipped, plain.flip(-1))
    # Columns are cut without resizing: column 16 of 64 has green 16 / 63 * 255.
    assert plain[1, 12, 0].item() == round(16 / 63 * 255)


def test_views_of_a_crop_show_the_same_place() -> None:
    image = gradient(100, 120)
    crop = draw_crops(TABLE_10, 3, [17], [(100, 120)])[0]
    small, large = render_crop(image, crop, 14), render_crop(image, crop, 56)
    shrunk = large.float().unflatten(1, (14, 4)).unflatten(3, (14, 4)).mean(dim=(2, 4))
    # Both sample one linear gradient; uint8 rounds each by half a level, edges are held by the crop's border.
    assert (shrunk - small.float())[:, 1:-1, 1:-1].abs().max() <= 1.0
    assert torch.equal(render_crop(image, crop, 14), small)


def test_jitter_changes_colours_and_nothing_when_neutral() -> None:
    image = gradient(20, 20)
    whole = Crop(0, 0, 20, 20)
    neutral = Crop(0, 0, 20, 20, jitter=Jitter((1.0, 1.0, 1.0, 0.0), (0, 1, 2, 3)))
    darker = Crop(0, 0, 20, 20, jitter=Jitter((0.5, 1.0, 1.0, 0.0), (0, 1, 2, 3)))
    assert (render_crop(image, neutral, 20).int() - render_crop(image, whole, 20).int()).abs().max() <= 1
    assert (render_crop(image, darker, 20).int() - render_crop(image, whole, 20).int() // 2).abs().max() <= 1


def test_a_hue_that_stays_changes_no_pixel() -> None:
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    jitter = Jitter((1.2, 0.8, 1.1, 0.0), (3, 2, 0, 1))
    theirs = v2.functional.adjust_contrast(
        v2.functional.adjust_brightness(v2.functional.adjust_saturation(image, 1.1), 1.2), 0.8
    )
    assert torch.equal(render_crop(image, Crop(0, 0, 20, 20, jitter=jitter), 20), theirs)
    turned = Crop(0, 0, 20, 20, jitter=Jitter((1.2, 0.8, 1.1, 0.1), (3, 2, 0, 1)))
    assert not torch.equal(render_crop(image, turned, 20), theirs)


def test_jitter_happens_as_often_as_asked_and_within_its_ranges() -> None:
    drawn = [crop.jitter for crop in draw_crops(JITTER, 0, range(4000), [(8, 8)] * 4000)]
    jitters = [jitter for jitter in drawn if jitter]
    factors = np.array([jitter.factors for jitter in jitters])
    # Four standard deviations of a coin of 0.8 thrown 4000 times.
    assert abs(len(jitters) - 3200) < 102
    assert np.allclose(factors.min(0), [0.6, 0.6, 0.8, -0.1], atol=0.01)
    assert np.allclose(factors.max(0), [1.4, 1.4, 1.2, 0.1], atol=0.01)
    assert len({jitter.order for jitter in jitters}) == 24


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 40, 100), (3, 300, 200), (1, 50, 70)])
def test_evaluation_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int, int]) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    # ceil(56 / 0.875) = 64
    theirs = v2.Compose([v2.Resize(64, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(56)])
    assert torch.equal(render_evaluation(image, 56, 0.875), theirs(image))


@pytest.mark.parametrize("shape", [(3, 10, 160), (3, 161, 10), (3, 40, 40), (1, 1, 16)])
def test_evaluation_of_up_to_sixteen_to_one_is_torchvisions(shape: tuple[int, int, int]) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = v2.Compose([v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(28)])
    assert torch.equal(render_evaluation(image, 28, 0.875), theirs(image))


@pytest.mark.parametrize("shape", [(3, 4, 400), (3, 400, 4), (3, 1, 512), (3, 37, 1001), (3, 1001, 37), (3, 5, 85)])
def test_evaluation_of_a_long_image_shows_the_same_middle(shape: tuple[int, int, int]) -> None:
    image = gradient(*shape[1:])
    theirs = v2.Compose([v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(28)])
    ours = render_evaluation(image, 28, 0.875)
    # One pixel of the resized image is a step of the gradient; rounding to uint8 adds a level.
    step = 255 / (32 * max(shape) / min(shape[1:]) - 1)
    assert (ours.int() - theirs(image).int()).abs().max() <= step + 1


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (1, 1)])
def test_the_longest_images_are_rendered_without_being_enlarged(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resized: list[int] = []
    resize = v2.functional.resize

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        resized.append(resize(*args, **options).numel())
        return resize(*args, **options)

    monkeypatch.setattr(v2.functional, "resize", watched)
    image = torch.full((3, *shape), 7, dtype=torch.uint8)
    assert render_evaluation(image, 28, 0.875).unique().tolist() == [7]
    (crop,) = draw_crops(TABLE_10, 0, [0], [shape])
    assert render_crop(image, crop, 28).unique().tolist() == [7]
    # 32 px on the short side, 17 times as many on the long one.
    assert max(resized) <= 3 * 32 * 17 * 32


def test_pixels_are_scaled_and_normalised_as_torchvision_does() -> None:
    images = list(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    unit = to_unit(images)
    theirs = v2.functional.to_dtype(torch.stack(images), torch.float32, scale=True)
    assert torch.equal(unit, theirs)
    assert torch.equal(
        normalize(unit, IMAGENET_MEAN, IMAGENET_STD), v2.functional.normalize(theirs, [*IMAGENET_MEAN], [*IMAGENET_STD])
    )


def test_grey_becomes_three_channels_and_alpha_is_dropped() -> None:
    grey, alpha = torch.full((1, 2, 2), 7, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8)
    assert torch.equal(to_channels(grey, 3), torch.full((3, 2, 2), 7, dtype=torch.uint8))
    assert torch.equal(to_channels(torch.cat([grey, alpha]), 3), to_channels(grey, 3))
    colour = gradient(4, 4)
    assert torch.equal(to_channels(torch.cat([colour, colour[:1]]), 3), colour)
    assert to_channels(colour, 1).shape == (1, 4, 4)


def test_channels_that_do_not_convert_are_an_error() -> None:
    with pytest.raises(InvalidValue, match="mean: has 3 values, but an image of 5 channels was read"):
        to_channels(torch.zeros(5, 2, 2, dtype=torch.uint8), 3)


def test_drawing_and_rendering_leave_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    crop = draw_crops(JITTER, 0, [0], [(20, 20)])[0]
    render_crop(gradient(20, 20), crop, 14)
    assert torch.equal(torch.get_rng_state(), before)
