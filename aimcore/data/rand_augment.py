"""RandAugment: random changes of colours and geometry, drawn from sample numbers.

The operations and their ranges are those of timm's ``rand-m9-mstd0.5-inc1``, which arXiv:2401.08541 (Table 11) and
arXiv:2411.14402 (Table A2) name. torchvision changes the pixels.

Shape suffixes: B batch, C channels, H W pixels, K operations per image.
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

from aimcore.contracts.randomness import keyed_integers, keyed_uniform
from aimcore.experiment import RandAugment

_MAX_LEVEL = 10.0


@attrs.frozen
class Change:
    """One operation with its value: an angle in degrees, a share of the side, a factor, bits or a threshold."""

    operation: str
    value: float = 0.0


OPERATIONS = (
    *("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
"""The names of the operations, which are drawn with equal probability."""


def value_of(operation: str, level: float, sign: int) -> float:
    """Return the value of an operation at a level in [0, 10], in timm's increasing forms.

    >>> value_of("rotate", 9.0, -1), value_of("brightness", 9.0, 1), value_of("posterize", 9.0, 1)
    (-27.0, 1.81, 1)
    """
    match operation:
        case "rotate":
            return 3.0 * level * sign  # degrees
        case "shear_x" | "shear_y":
            return 0.03 * level * sign  # pixels per pixel of distance
        case "translate_x" | "translate_y":
            return 0.045 * level * sign  # share of the side
        case "posterize":
            return 4 - int(0.4 * level)  # bits that are kept
        case "solarize":
            return 256 - int(25.6 * level)  # pixels from this value on are inverted
        case "solarize_add":
            return int(11.0 * level)  # added to pixels below 128
        case "color" | "contrast" | "brightness" | "sharpness":
            return max(0.1, 1 + 0.09 * level * sign)  # factor, of which 1 changes nothing
    return 0.0  # the others have no strength


def draw_changes(
    settings: RandAugment | None, seed: int, sample_numbers: npt.ArrayLike, key: str = ""
) -> list[tuple[Change, ...]]:
    """Draw the changes of the samples ``[B]``: a function of seed, ``key`` and sample number.

    Each of ``settings.num_ops`` operations is drawn with replacement and happens with ``settings.probability``.

    >>> draw_changes(RandAugment(num_ops=1, probability=1.0, magnitude_std=0.0), 0, [3])
    [(Change(operation='solarize_add', value=99),)]
    """
    numbers_B = np.asarray(sample_numbers, dtype=np.int64)
    if settings is None:
        return [()] * len(numbers_B)
    draw_BK = numbers_B[:, None] * settings.num_ops + np.arange(settings.num_ops)
    which_BK = keyed_integers(seed, f"{key}rand augment", draw_BK, 0, len(OPERATIONS))
    happens_BK = keyed_uniform(seed, f"{key}rand augment happens", draw_BK) < settings.probability
    level_BK = settings.magnitude + settings.magnitude_std * _normal(seed, f"{key}rand augment level", draw_BK)
    sign_BK = np.where(keyed_uniform(seed, f"{key}rand augment sign", draw_BK) < 0.5, -1, 1)
    drawn = zip(which_BK, happens_BK, level_BK.clip(0, _MAX_LEVEL), sign_BK, strict=True)
    return [
        tuple(
            Change(OPERATIONS[which], value_of(OPERATIONS[which], level, sign))
            for which, happens, level, sign in zip(*(row_K.tolist() for row_K in rows), strict=True)
            if happens
        )
        for rows in drawn
    ]


def _normal(seed: int, purpose: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return standard normal numbers, by inversion."""
    uniform = keyed_uniform(seed, purpose, numbers)
    # The middle of each step of 2**-53, because 0 would give minus infinity.
    normal: npt.NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(uniform + 2.0**-54)).numpy()
    return normal


def changed(image_CHW: Tensor, changes: Sequence[Change], fill: Sequence[float], *, picks: bool = False) -> Tensor:
    """Apply ``changes`` to a ``uint8`` image of 1 or 3 channels, one after another.

    Args:
        image_CHW: the image.
        changes: from :func:`draw_changes`.
        fill: value per channel, from 0 to 255, of pixels that a change of geometry moves in from outside.
        picks: whether the image is a mask of any integers, as float64 or uint8: only the geometry changes, by nearest
            neighbour, and 0 is moved in.
    """
    for change in changes:
        moved = _moved(image_CHW, change, [0.0] * len(image_CHW) if picks else list(fill), nearest=picks)
        if moved is not None:
            image_CHW = moved
        elif not picks:
            image_CHW = _recoloured(image_CHW, change)
    return image_CHW


def _moved(image_CHW: Tensor, change: Change, fill: list[float], *, nearest: bool) -> Tensor | None:
    """Return the image with its geometry changed; None if the change is one of colours."""
    value, (height, width) = change.value, image_CHW.shape[1:]
    angle, translation, shear = 0.0, [0.0, 0.0], [0.0, 0.0]
    center: list[float] | None = None  # the middle
    match change.operation:
        case "rotate":
            angle = value
        case "translate_x":
            translation = [value * width, 0.0]
        case "translate_y":
            translation = [0.0, value * height]
        case "shear_x" | "shear_y":
            # As in Pillow: the top left corner stays, and a line moves by `value` times its distance from it.
            center = [0.0, 0.0]
            shear["xy".index(change.operation[-1])] = math.degrees(math.atan(value))
        case _:
            return None
    tv = _torchvision()
    mode = tv.InterpolationMode.NEAREST if nearest else tv.InterpolationMode.BILINEAR
    moved: Tensor = tv.affine(image_CHW, angle, translation, 1.0, shear, interpolation=mode, fill=fill, center=center)
    return moved


def _recoloured(image_CHW: Tensor, change: Change) -> Tensor:
    tv, value = _torchvision(), change.value
    recoloured: Tensor
    match change.operation:
        case "autocontrast" | "equalize" | "invert":
            recoloured = getattr(tv, change.operation)(image_CHW)
        case "posterize":
            recoloured = tv.posterize(image_CHW, int(value))
        case "solarize":
            recoloured = image_CHW if value > 255 else tv.solarize(image_CHW, value)
        case "solarize_add":
            brighter = (image_CHW.int() + int(value)).clamp(max=255).to(torch.uint8)
            recoloured = torch.where(image_CHW < 128, brighter, image_CHW)
        case "color":
            # Saturation means nothing in a picture of one channel.
            recoloured = tv.adjust_saturation(image_CHW, value) if len(image_CHW) == 3 else image_CHW
        case other:
            recoloured = getattr(tv, f"adjust_{other}")(image_CHW, value)
    return recoloured


def _torchvision() -> Any:
    """Functions of torchvision, imported with the first image: loading them takes a second."""
    from torchvision.transforms.v2 import functional

    return functional
