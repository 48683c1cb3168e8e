"""RandAugment against Pillow, on which timm's is built, and its draws against what timm's names mean."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.data.rand_augment import OPERATIONS, Change, changed, draw_changes
from aimcore.data.transforms import Crop, CropDraws, render_crop
from aimcore.experiment import Augmentation, Data, RandAugment
from aimcore_sources import BundledFashionMNIST

SMOOTH = torch.nn.functional.interpolate(
    torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 200 + 20,
    size=(40, 48),
    mode="bicubic",
)[0]
IMAGE = SMOOTH.clamp(0, 255).to(torch.uint8)


def brighter_when_dark(add: int) -> list[int]:
    """A table of the values of three channels."""
    return 3 * [min(255, value + add) if value < 128 else value for value in range(256)]


COLORS = {
    "autocontrast": (0.0, lambda image, _: ImageOps.autocontrast(image)),
    "equalize": (0.0, lambda image, _: ImageOps.equalize(image)),
    "invert": (0.0, lambda image, _: ImageOps.invert(image)),
    "posterize": (1.0, lambda image, bits: ImageOps.posterize(image, int(bits))),
    "solarize": (100.0, lambda image, threshold: ImageOps.solarize(image, int(threshold))),
    "solarize_add": (
        99.0,
        lambda image, add: image.point(brighter_when_dark(int(add))),
    ),
    "color": (1.81, lambda image, factor: ImageEnhance.Color(image).enhance(factor)),
    "contrast": (0.19, lambda image, factor: ImageEnhance.Contrast(image).enhance(factor)),
    "brightness": (1.81, lambda image, factor: ImageEnhance.Brightness(image).enhance(factor)),
    "sharpness": (1.81, lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor)),
}

BILINEAR = Image.Resampling.BILINEAR


def affine(*coefficients: float):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, resample=BILINEAR)


# Of Pillow's affine maps, which take a pixel of the result to one of the image.
GEOMETRY = {
    "rotate": (27.0, lambda image: image.rotate(-27.0, resample=BILINEAR)),
    "shear_x": (0.27, affine(1, 0.27, 0, 0, 1, 0)),
    "shear_y": (-0.27, affine(1, 0, 0, -0.27, 1, 0)),
    "translate_x": (0.405, affine(1, 0, -0.405 * 48, 0, 1, 0)),
    "translate_y": (-0.405, affine(1, 0, 0, 0, 1, 0.405 * 40)),
}


def pillows(image_CHW: Tensor) -> Image.Image:
    return Image.fromarray(image_CHW.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_operations_are_timms_fifteen() -> None:
    assert {*COLORS, *GEOMETRY} == set(OPERATIONS)
    assert len(OPERATIONS) == 15


@pytest.mark.parametrize("operation", COLORS)
def test_colours_change_as_pillows(operation: str) -> None:
    value, theirs = COLORS[operation]
    ours = changed(IMAGE, [Change(operation, value)], (0.0,))
    # Pillow rounds a grey intermediate; blended by 1.81 that is two levels at most.
    assert (ours.int() - tensor(theirs(pillows(IMAGE), value)).int()).abs().max() <= 2
    assert not torch.equal(ours, IMAGE)


@pytest.mark.parametrize("operation", GEOMETRY)
def test_geometry_changes_as_pillows(operation: str) -> None:
    value, theirs = GEOMETRY[operation]
    ours = changed(IMAGE, [Change(operation, value)], (0.0,))
    inside = tensor(theirs(pillows(torch.full_like(IMAGE, 255))))
    # A pixel that is blended with what lies outside is left out: Pillow repeats the border there.
    inner = -torch.nn.functional.max_pool2d(-inside.float(), 5, 1, 2) == 255
    assert inner[0].float().mean() > 0.3
    difference = (ours.int() - tensor(theirs(pillows(IMAGE))).int()).abs()
    assert difference[inner].max() <= 1
    assert (IMAGE.int() - ours.int()).abs()[inner].max() > 20


def test_what_is_moved_in_has_the_filling_colour() -> None:
    ours = changed(IMAGE, [Change("translate_x", 0.5)], (1.0, 2.0, 3.0))
    assert ours[:, 20, 3].tolist() == [1, 2, 3]


def test_a_mask_moves_with_its_image_and_keeps_its_values() -> None:
    mask = (IMAGE[:1] > 120).double() * 1000
    moves = [Change("invert"), Change("translate_x", 0.25), Change("brightness", 1.9)]
    moved = changed(mask, moves, (128.0,), picks=True)
    assert torch.equal(moved[..., 12:], mask[..., :-12])
    assert not moved[..., :12].any()


def test_a_grey_image_changes_too() -> None:
    for operation in OPERATIONS:
        assert changed(IMAGE[:1], [Change(operation, 1.0)], (0.0,)).shape == (1, 40, 48)


def test_each_operation_is_drawn_equally_often_and_happens_half_of_the_time() -> None:
    drawn = draw_changes(RandAugment(), 0, range(6000))
    count = Counter(change.operation for changes in drawn for change in changes)
    # 12,000 draws of which half happen; four standard deviations of binomials.
    assert abs(sum(count.values()) - 6000) < 4 * math.sqrt(3000)
    assert set(count) == set(OPERATIONS)
    assert all(abs(number - 400) < 4 * math.sqrt(400) for number in count.values())
    assert {len(changes) for changes in drawn} == {0, 1, 2}


def test_levels_are_normal_about_the_magnitude_and_signs_are_even() -> None:
    always = RandAugment(magnitude=5.0, probability=1.0)
    angles = np.array([c.value for cs in draw_changes(always, 1, range(9000)) for c in cs if c.operation == "rotate"])
    assert abs((angles > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(len(angles))
    # Three degrees per level: mean 15, standard deviation 1.5.
    assert abs(abs(angles).mean() - 15) < 4 * 1.5 / math.sqrt(len(angles))
    assert abs(abs(angles).std() - 1.5) < 4 * 1.5 / math.sqrt(2 * len(angles))


def test_levels_end_at_ten() -> None:
    strongest = RandAugment(magnitude=10.0, magnitude_std=50.0, probability=1.0)
    values = {c.operation: set() for cs in draw_changes(strongest, 0, range(900)) for c in cs}
    for changes in draw_changes(strongest, 0, range(900)):
        for change in changes:
            values[change.operation].add(round(change.value, 6))
    assert max(values["rotate"]) == 30
    assert min(values["rotate"]) == -30
    assert (min(values["posterize"]), max(values["posterize"])) == (0, 4)
    assert (min(values["solarize"]), max(values["solarize"])) == (0, 256)
    assert max(values["solarize_add"]) == 110
    assert (min(values["contrast"]), max(values["contrast"])) == (0.1, 1.9)
    assert max(values["translate_x"]) == 0.45


def test_changes_depend_on_seed_and_number_alone() -> None:
    augmentation = Augmentation(rand_augment=RandAugment())
    together = CropDraws.of(augmentation, 5, range(50)).changes_B
    assert together == [CropDraws.of(augmentation, 5, [number]).changes_B[0] for number in range(50)]
    assert together != CropDraws.of(augmentation, 6, range(50)).changes_B
    assert together != CropDraws.of(augmentation, 5, range(50), name="second").changes_B


def test_changes_come_after_the_flip_and_nothing_changes_without_them() -> None:
    plain = render_crop(IMAGE, Crop(0, 0, 40, 48, flip=True), (40, 48))
    moved = render_crop(IMAGE, Crop(0, 0, 40, 48, flip=True, changes=(Change("translate_x", 0.25),)), (40, 48))
    assert torch.equal(plain, IMAGE.flip(-1))
    assert torch.equal(moved[..., 12:], plain[..., :-12])
    assert CropDraws.of(Augmentation(), 0, range(3)).changes_B == [(), (), ()]


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"magnitude.*10"):
        RandAugment(magnitude=11.0)
    with pytest.raises(InvalidValue, match="num_ops"):
        RandAugment(num_ops=0)


def test_images_of_two_channels_cannot_change_colours() -> None:
    source = BundledFashionMNIST()
    with pytest.raises(InvalidValue, match="needs 1 or 3 channels: mean has 2"):
        Data(
            train=source,
            validation=source,
            batch_size=8,
            mean=(0.5, 0.5),
            std=(0.5, 0.5),
            augmentation=Augmentation(rand_augment=RandAugment()),
        )
