"""Native resolution: the number of patches per image, and of images, in each step (arXiv:2411.14402, section 2.4).

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, S steps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.images import Images, PatchGrid, PixelStatistics, patchify
from aimcore.contracts.randomness import keyed_uniform
from aimcore.data.transforms import normalize, to_unit
from aimcore.experiment import Data, NativeResolution


@attrs.frozen(eq=False)
class NativeSteps:
    """Area, images and first sample number of the steps of a run: the same for every process, whenever it begins.

    The stream of samples has no gaps: a step starts where the previous one ended.
    """

    area_S: npt.NDArray[np.int64]
    """Patches per image."""
    num_images_S: npt.NDArray[np.int64]
    first_S: npt.NDArray[np.int64]
    """Number of each step's first sample."""

    @classmethod
    def of(cls, native: NativeResolution, seed: int, num_steps: int) -> NativeSteps:
        """Return the first ``num_steps`` steps of a run."""
        area_S = areas(native, seed, num_steps)
        fitting_S = native.patches_per_step // area_S
        num_images_S = fitting_S // native.images_multiple_of * native.images_multiple_of
        return cls(area_S, num_images_S, np.cumsum(num_images_S) - num_images_S)


def areas(native: NativeResolution, seed: int, num_steps: int) -> npt.NDArray[np.int64]:
    """``[S]`` patches per image: 2^n rounded down, n from a standard normal truncated to [-1, 1] and mapped linearly.

    The paper's form (section 2.4). It is drawn by inversion from (seed, step).
    """
    uniform_S = torch.from_numpy(keyed_uniform(seed, "native area", np.arange(num_steps)))
    inside = math.erf(math.sqrt(0.5))  # the share of a standard normal that lies in [-1, 1]
    normal_S = torch.special.ndtri(0.5 + (uniform_S - 0.5) * inside).clamp(-1, 1)
    low, high = native.log2_area
    area_S: npt.NDArray[np.int64] = np.floor(2 ** (low + (high - low) * (normal_S.numpy() + 1) / 2)).astype(np.int64)
    return area_S


def fitted_size(height: int, width: int, patch_size: int, area: int) -> tuple[int, int]:
    """Return the largest (height, width) in pixels, of the same aspect ratio, whose patches are at most ``area``.

    An image has ceil(height / patch) rows of ceil(width / patch) patches. The largest scale that fits fills whole rows
    or whole columns; the other side is rounded up to a pixel, so the aspect ratio changes by less than one pixel, and
    every side has at least one.

    >>> fitted_size(100, 200, patch_size=14, area=32)
    (56, 112)
    """
    # Scaled to r rows, an image has ceil(r * width / height) columns: more rows are never fewer patches.
    rows = bisect_right(range(1, area + 1), area, key=lambda r: r * -(-r * width // height))
    columns = bisect_right(range(1, area + 1), area, key=lambda c: c * -(-c * height // width))
    if rows * width >= columns * height:
        return rows * patch_size, -(-rows * patch_size * width // height)
    return -(-columns * patch_size * height // width), columns * patch_size


def pack(images: Sequence[Tensor], area: int, data: Data, patch_size: int, *, padding_is_image: bool) -> Images:
    """Normalised images of ``area`` patches each, from ``uint8 [C, H, W]`` images that fit.

    Zeros, after normalisation (so they are grey of the mean, not black), fill the last row and column of patches up,
    and then patches up to ``area``.
    """
    patches_BNF = torch.zeros(len(images), area, patch_size**2 * len(data.mean))
    grids = []
    for number, image in enumerate(images):
        pixels_1CHW = _filled_up(normalize(to_unit([image]), data.mean, data.std), patch_size)
        grids.append(PatchGrid(pixels_1CHW.shape[2] // patch_size, pixels_1CHW.shape[3] // patch_size))
        patches_BNF[number, : grids[-1].num_patches] = patchify(pixels_1CHW, patch_size)[0]
    sizes = tuple((image.shape[1], image.shape[2]) for image in images)
    statistics = PixelStatistics(data.mean, data.std)
    return Images(patches_BNF, tuple(grids), patch_size, padding_is_image, sizes, statistics)


def _filled_up(pixels_1CHW: Tensor, patch_size: int) -> Tensor:
    height, width = pixels_1CHW.shape[2:]
    return torch.nn.functional.pad(pixels_1CHW, (0, -width % patch_size, 0, -height % patch_size))
