"""Crops, and renderings of the same crop in several sizes.

Everything random about a crop is drawn for a whole batch at once from (seed, sample number), never from torch's
generators: they are neither read nor disturbed, and seeding one for every sample would cost more than the crop.
Images stay uint8 while they are cropped and resized, because torch resizes uint8 fastest.

Shape suffixes: B batch, C channels, H W pixels, A attempts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.randomness import keyed_bits, keyed_uniform
from aimcore.data.rand_augment import Change, changed, draw_changes
from aimcore.experiment import Augmentation

# torchvision's RandomResizedCrop makes this number of attempts before it falls back to a central crop.
_ATTEMPTS = 10
# A longer image is cut before evaluation resizes it. Common images are far below.
_MAX_RATIO = 16
GREY = (128.0,)
"""Fills what RandAugment moves in from outside, if the mean of the images is unknown."""


def _torchvision() -> Any:
    """Functions of torchvision, imported with the first image: loading them takes a second."""
    from torchvision.transforms.v2 import functional

    return functional


@attrs.frozen
class Jitter:
    """Factors of brightness, contrast, saturation and hue, and the order in which they are applied."""

    factors: tuple[float, float, float, float]
    order: tuple[int, ...]


@attrs.frozen
class Crop:
    """One sample's random choices: a rectangle in source pixels, a flip, RandAugment's changes, colours."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    jitter: Jitter | None = None
    changes: tuple[Change, ...] = ()


@attrs.frozen(eq=False)
class CropDraws:
    """The random numbers for the crops of a batch: a pure function of (seed, sample number).

    They are drawn before any image is read. A crop is computed from them and the size of its image, so that a batch
    needs more than one decoded image at a time. The distribution is torchvision's RandomResizedCrop (area uniform, log
    ratio uniform, ten attempts, then a central crop of the nearest allowed ratio), RandomHorizontalFlip and
    ColorJitter, and timm's RandAugment; defaults: arXiv:2401.08541, Table 10.
    """

    ratio_range: tuple[float, float]
    area_BA: list[list[float]]
    """Share of the image's area, for each attempt."""
    ratio_BA: list[list[float]]
    """Width / height, for each attempt."""
    shift_B2: list[list[float]]
    """Offset of the crop in the remaining space, down and to the right, from 0 to 1."""
    flip_B: list[bool]
    jitter_B: list[Jitter | None]
    changes_B: list[tuple[Change, ...]]

    @classmethod
    def of(
        cls, augmentation: Augmentation, seed: int, sample_numbers: npt.ArrayLike, *, name: str | None = None
    ) -> CropDraws:
        """Draw for the samples ``[B]``, which are non-negative integers; crops of another name are drawn apart."""
        numbers_B = np.asarray(sample_numbers, dtype=np.int64)
        attempt_BA = numbers_B[:, None] * _ATTEMPTS + np.arange(_ATTEMPTS)
        low, high = augmentation.crop_scale
        key = "" if name is None else f"{name}/"
        area_BA = low + (high - low) * keyed_uniform(seed, f"{key}crop area", attempt_BA)
        log_low, log_high = np.log(augmentation.crop_ratio)
        ratio_BA = np.exp(log_low + (log_high - log_low) * keyed_uniform(seed, f"{key}crop ratio", attempt_BA))
        shift_B2 = keyed_uniform(seed, f"{key}crop place", numbers_B[:, None] * 2 + np.arange(2))
        flip_B = keyed_uniform(seed, f"{key}flip", numbers_B) < augmentation.flip_probability
        jitter_B = _draw_jitters(augmentation, seed, numbers_B, key)
        return cls(
            augmentation.crop_ratio,
            area_BA=area_BA.tolist(),
            ratio_BA=ratio_BA.tolist(),
            shift_B2=shift_B2.tolist(),
            flip_B=flip_B.tolist(),
            jitter_B=jitter_B,
            changes_B=draw_changes(augmentation.rand_augment, seed, numbers_B, key),
        )

    def crop(self, place: int, height: int, width: int) -> Crop:
        """Return the crop of sample ``place`` of the batch, whose image has this size in pixels."""
        for area, ratio in zip(self.area_BA[place], self.ratio_BA[place], strict=True):
            pixels = area * (height * width)
            extent = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < extent[0] <= height and 0 < extent[1] <= width:
                down, right = self.shift_B2[place]
                corner = math.floor(down * (height - extent[0] + 1)), math.floor(right * (width - extent[1] + 1))
                return self._crop(place, corner, extent)
        extent = _fallback_extent(height, width, self.ratio_range)
        return self._crop(place, ((height - extent[0]) // 2, (width - extent[1]) // 2), extent)

    def whole(self, place: int, height: int, width: int) -> Crop:
        """Return the whole image as the crop: only flip and colours are drawn."""
        return self._crop(place, (0, 0), (height, width))

    def _crop(self, place: int, corner: tuple[int, int], extent: tuple[int, int]) -> Crop:
        return Crop(*corner, *extent, self.flip_B[place], self.jitter_B[place], self.changes_B[place])


def _fallback_extent(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return the whole image, cut to the nearest allowed ratio (width / height)."""
    return max(1, min(height, round(width / ratio[0]))), max(1, min(width, round(height * ratio[1])))


def _draw_jitters(
    augmentation: Augmentation, seed: int, numbers_B: npt.NDArray[np.int64], key: str
) -> list[Jitter | None]:
    if augmentation.color_jitter is None:
        return [None] * len(numbers_B)
    spread = np.asarray(augmentation.color_jitter)
    centre = np.array([1.0, 1.0, 1.0, 0.0])
    # A negative brightness, contrast or saturation has no meaning; hue turns both ways.
    low = np.where(centre > 0, np.maximum(centre - spread, 0), -spread)
    four_B4 = numbers_B[:, None] * 4 + np.arange(4)
    factors_B4 = low + (centre + spread - low) * keyed_uniform(seed, f"{key}jitter", four_B4)
    order_B4 = keyed_bits(seed, f"{key}jitter order", four_B4).argsort(1)
    happens_B = keyed_uniform(seed, f"{key}jitter happens", numbers_B) < augmentation.color_jitter_probability
    rows = zip(factors_B4.tolist(), order_B4.tolist(), happens_B.tolist(), strict=True)
    return [Jitter(tuple(factors), tuple(order)) if happens else None for factors, order, happens in rows]


def render_crop(
    image_CHW: Tensor,
    crop: Crop,
    size: int | tuple[int, int],
    *,
    picks: bool = False,
    fill: Sequence[float] = GREY,
) -> Tensor:
    """Return the crop in ``size`` pixels, uint8: cut, resized (bicubic, antialiased), flipped, changed, jittered.

    One number is the side of a square, two are height and width. ``picks`` takes the nearest pixels of an image of any
    integers, such as a mask, and leaves colours alone. ``fill`` is one value for all channels, or one per channel, from
    0 to 255: that of pixels which RandAugment moves in from outside.
    """
    tv = _torchvision()
    sides = [size, size] if isinstance(size, int) else list(size)
    resizable, how = _resizing(image_CHW, picks=picks)
    cut: Tensor = tv.resized_crop(resizable, crop.top, crop.left, crop.height, crop.width, sides, **how)
    if crop.flip:
        cut = tv.horizontal_flip(cut)
    if crop.changes or crop.jitter:
        cut = cut.contiguous()  # so that changes of colours do not depend on how the image was decoded
    cut = changed(cut, crop.changes, fill, picks=picks)
    return _jittered(cut, crop.jitter) if crop.jitter and not picks else cut.to(image_CHW.dtype)


def _resizing(image_CHW: Tensor, *, picks: bool) -> tuple[Tensor, dict[str, Any]]:
    """The image in a type that torch resizes without changing integers, and how it is resized."""
    mode = _torchvision().InterpolationMode
    if not picks:
        return image_CHW, {"interpolation": mode.BICUBIC, "antialias": True}
    exact = image_CHW if image_CHW.dtype == torch.uint8 else image_CHW.double()
    return exact, {"interpolation": mode.NEAREST_EXACT, "antialias": False}


def _jittered(image_CHW: Tensor, jitter: Jitter) -> Tensor:
    tv = _torchvision()
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for which in jitter.order:
        # Saturation and hue mean nothing in a picture of one channel. A hue that stays would cost most of the time, and
        # changes nothing.
        if which < 2 or (image_CHW.shape[0] == 3 and not (which == 3 and jitter.factors[3] == 0)):
            image_CHW = changes[which](image_CHW, jitter.factors[which])
    return image_CHW


def render_evaluation(image_CHW: Tensor, size: int, eval_crop: float, *, picks: bool = False) -> Tensor:
    """Return the centre as ``uint8 [C, size, size]``: resize the short side to ceil(size / eval_crop), then crop.

    Renderings in several sizes show the same centre up to the rounding of that side. Of an image that is longer than
    16 times its width (or the other way round), only the middle is resized, up to that ratio: the crop is the same to
    within a pixel, and an image of 1 x 60,000 px is not enlarged to 256 x 15,360,000. ``picks`` as in
    :func:`render_crop`.
    """
    tv = _torchvision()
    short_side = math.ceil(size / eval_crop)
    resizable, how = _resizing(_middle(image_CHW), picks=picks)
    cut: Tensor = tv.center_crop(tv.resize(resizable, [short_side], **how), [size, size])
    return cut.to(image_CHW.dtype)


def _middle(image_CHW: Tensor) -> Tensor:
    """Return the image, cut at both ends of its long side to at most ``_MAX_RATIO`` times the short side."""
    longest = _MAX_RATIO * min(image_CHW.shape[1:])
    for axis in (1, 2):
        excess = image_CHW.shape[axis] - longest
        if excess > 0:
            # An odd excess would move the centre by half a pixel: one pixel more is kept.
            image_CHW = image_CHW.narrow(axis, excess // 2, longest + excess % 2)
    return image_CHW


def to_channels(image_CHW: Tensor, num_channels: int) -> Tensor:
    """Return the image with ``num_channels`` channels.

    Grey becomes three equal channels, alpha is dropped and not composited (like Pillow's ``convert("RGB")``), and
    colour becomes grey if one channel is requested (ITU-R 601-2 weights).

    Raises:
        InvalidValue: there is no such conversion.
    """
    channels = image_CHW.shape[0]
    if channels == num_channels:
        return image_CHW
    if channels in (2, 4):
        image_CHW, channels = image_CHW[:-1], channels - 1
    if channels == 1 and num_channels == 3:
        return image_CHW.expand(3, -1, -1)
    if channels == 3 and num_channels == 1:
        grey: Tensor = _torchvision().rgb_to_grayscale(image_CHW)
        return grey
    if channels != num_channels:
        message = (
            f"has {num_channels} values, but an image of {channels} channels was read; give mean and std one value per "
            "channel (1 and 3 channels, with or without alpha, convert into each other)"
        )
        raise InvalidValue("Data", [("mean", message)])
    return image_CHW


def to_unit(images: Sequence[Tensor]) -> Tensor:
    """Stack uint8 images of one size as one float32 batch in [0, 1]."""
    # numpy, because it stays in this thread: torch would spread a batch over threads that the training needs.
    unit = np.stack([image.numpy() for image in images]).astype(np.float32)
    unit *= np.float32(1 / 255)
    return torch.from_numpy(unit)


def to_patches(images: Sequence[Tensor], patch_size: int) -> Tensor:
    """Cut uint8 images ``[C, H, W]`` of one size into patches, uint8 ``[B, N, F]``.

    They are those of :func:`~aimcore.contracts.images.patchify`, which is slower because it copies floats.
    """
    channels, height, width = images[0].shape
    rows, columns = height // patch_size, width // patch_size
    # One row of a patch is contiguous in an image whose channels are next to each other.
    shape = (len(images), rows, columns, patch_size, patch_size * channels)
    patches = np.empty(shape, dtype=np.uint8)
    for place, image in enumerate(images):
        lines = image.permute(1, 2, 0).numpy().reshape(rows, patch_size, columns, patch_size * channels)
        patches[place] = lines.transpose(0, 2, 1, 3)
    return torch.from_numpy(patches.reshape(len(images), rows * columns, patch_size**2 * channels))


def normalize_patches(patches_BNF: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 patches as float32: the same numbers as :func:`normalize` after :func:`to_unit`."""
    values = patches_BNF.shape[2] // len(mean)
    mean_F, std_F = (torch.tensor(list(one), dtype=torch.float32).repeat(values) for one in (mean, std))
    normal_BNF = torch.empty(patches_BNF.shape)
    for one_NF, bytes_NF in zip(normal_BNF, patches_BNF, strict=True):  # image by image, which stays in the caches
        one_NF.copy_(bytes_NF).mul_(1 / 255).sub_(mean_F).div_(std_F)
    return normal_BNF


def normalize(unit_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract ``mean`` and divide by ``std``, channel by channel."""
    shape = (1, -1, 1, 1)
    normal = unit_BCHW.numpy() - np.asarray(mean, dtype=np.float32).reshape(shape)
    normal /= np.asarray(std, dtype=np.float32).reshape(shape)
    return torch.from_numpy(normal)
