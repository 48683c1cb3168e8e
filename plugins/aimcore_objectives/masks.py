"""Random masks of patches: single patches or blocks, drawn from sample numbers.

Shape suffixes: B batch, A blocks, N patches in raster order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aimcore import Images
from aimcore.contracts import limits
from aimcore.contracts.randomness import keyed_uniform

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BLOCKS = 32
"""Blocks that are drawn per image. Together they almost always cover enough; single patches fill up the rest."""
_SMALLEST_BLOCK = 16 / 196
_LOG_ASPECT = np.log(1 / 0.3)


def num_masked(images: Images, ratio: float) -> Integers:
    """Return ``[B]``, the number of masked patches of each image: at least one, and one patch is always left.

    >>> from torch import zeros
    >>> from aimcore import PatchGrid
    >>> num_masked(Images(zeros(1, 256, 1), (PatchGrid(16, 16),), 1), 0.75).tolist()
    [192]
    """
    lengths_B = np.array(images.lengths, dtype=np.int64)
    masked_B: Integers = np.minimum(np.maximum(1, np.rint(ratio * lengths_B).astype(np.int64)), lengths_B - 1)
    return masked_B


def random_masks(images: Images, ratio: float, sample_numbers_B: Integers, seed: int) -> Flags:
    """Return ``[B, N]``, True for masked patches: uniform without replacement, a function of (seed, sample number)."""
    return _lowest(_uniform(images, sample_numbers_B, seed), num_masked(images, ratio))


def block_masks(images: Images, ratio: float, sample_numbers_B: Integers, seed: int) -> Flags:
    """Return ``[B, N]``, True for masked patches: the union of blocks, as in BEiT (arXiv:2106.08254, Algorithm 1).

    A block covers between 16/196 of the image and the number of masked patches; its aspect ratio is log-uniform in
    [0.3, 1/0.3]. Departure: the last block is cut, row by row, so that every image has the exact number of masked
    patches; the paper's algorithm stops above it.
    """
    masked_B = num_masked(images, ratio)
    inside_BAN = _blocks(images, masked_B, sample_numbers_B, seed)
    uncovered_BN = ~inside_BAN.any(1)
    first_BN = np.where(uncovered_BN, _BLOCKS, inside_BAN.argmax(1)).astype(np.float64)
    # Patches of earlier blocks come first, each block row by row; uncovered patches come last, in random order.
    within_N = np.arange(first_BN.shape[1]) / first_BN.shape[1]
    return _lowest(first_BN + np.where(uncovered_BN, _uniform(images, sample_numbers_B, seed), within_N), masked_B)


def _uniform(images: Images, sample_numbers_B: Integers, seed: int) -> Floats:
    """Return ``[B, N]`` numbers in [0, 1); infinity on padding, which is never masked."""
    index_N = np.arange(images.patches_BNF.shape[1])
    # A stride that does not depend on the padding of the batch.
    uniform_BN = keyed_uniform(seed, "mask", sample_numbers_B[:, None] * limits.PATCHES + index_N)
    return np.where(index_N < np.array(images.lengths)[:, None], uniform_BN, np.inf)


def _blocks(images: Images, masked_B: Integers, sample_numbers_B: Integers, seed: int) -> Flags:
    """Return ``[B, A, N]``, True inside each block."""
    four_BA4 = (sample_numbers_B[:, None, None] * _BLOCKS + np.arange(_BLOCKS)[:, None]) * 4 + np.arange(4)
    area_BA, aspect_BA, down_BA, right_BA = np.moveaxis(keyed_uniform(seed, "mask blocks", four_BA4), -1, 0)
    lengths_B1, most_B1 = np.array(images.lengths)[:, None], np.maximum(1, masked_B)[:, None]
    least_B1 = np.minimum(most_B1, _SMALLEST_BLOCK * lengths_B1)
    size_BA = least_B1 + area_BA * (most_B1 - least_B1)
    ratio_BA = np.exp((2 * aspect_BA - 1) * _LOG_ASPECT)
    columns_B1 = np.array([grid.columns for grid in images.grids])[:, None]
    rows_B1 = -(-lengths_B1 // columns_B1)  # padding that is part of the image continues the rows
    height_BA = np.clip(np.rint(np.sqrt(size_BA * ratio_BA)), 1, rows_B1)
    width_BA = np.clip(np.rint(np.sqrt(size_BA / ratio_BA)), 1, columns_B1)
    row_BAN, column_BAN = np.divmod(np.arange(images.patches_BNF.shape[1]), columns_B1[..., None])
    top_BA1 = np.floor(down_BA * (rows_B1 - height_BA + 1))[..., None]
    left_BA1 = np.floor(right_BA * (columns_B1 - width_BA + 1))[..., None]
    in_rows = (row_BAN >= top_BA1) & (row_BAN < top_BA1 + height_BA[..., None])
    inside_BAN: Flags = in_rows & (column_BAN >= left_BA1) & (column_BAN < left_BA1 + width_BA[..., None])
    return inside_BAN & (np.arange(inside_BAN.shape[2]) < lengths_B1[..., None])


def _lowest(values_BN: Floats, count_B: Integers) -> Flags:
    """Return ``[B, N]``, True at the ``count_B`` lowest values of each row."""
    rank_BN = values_BN.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    lowest_BN: Flags = rank_BN < count_B[:, None]
    return lowest_BN
