"""Multi-block masks: several target blocks per image, and one context block without them (section 3, Figure 4).

Shape suffixes: B batch, T target blocks, A attempts, N patches in raster order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aimcore import Images, PatchGrid, Problem, at_least
from aimcore.contracts.component import Checked, settings
from aimcore.contracts.randomness import keyed_uniform

ATTEMPTS = 20
"""How often the blocks of a sample are placed anew before they are placed on top of each other."""
_MOST_BLOCKS = 64

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class BlockMasks(NamedTuple):
    """What is read and what is predicted, on the CPU."""

    context_BN: Flags
    """True for the patches that the context encoder reads."""
    target_BTN: Flags
    """True for the patches of each target block; blocks may overlap each other, never the context."""


@settings
class Blocks(Checked):
    """How blocks are drawn. The defaults are the paper's (section 3).

    A block's scale is its share of the image's patches, its aspect ratio is height over width. Every block of every
    sample has a size of its own, as the paper describes; the authors' code draws one size per batch, which makes all
    sequences equally long.
    """

    num_targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Of the context block, which is as high as wide where the image allows."""
    min_context: int = 10
    """Fewest patches of a context, as in the authors' configurations. Smaller images need a smaller number."""

    def problems(self) -> Iterable[Problem]:
        """Ranges must be ranges, of shares that an image has."""
        yield from at_least("num_targets", self.num_targets, 1, _MOST_BLOCKS)
        yield from at_least("min_context", self.min_context, 1)
        for name, most in (("target_scale", 1.0), ("context_scale", 1.0), ("target_aspect", 100.0)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                yield Problem(name, f"must be two numbers, 0 < low <= high <= {most:g}, got {low, high}")

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """A context must be left, if all target blocks of the largest size lie on one another."""
        left = self._smallest_context(grid) - self._largest_target(grid)
        if left < self.min_context:
            yield (
                f"target blocks may leave only {max(left, 0)} of {grid.num_patches} patches in the context, and "
                f"min_context is {self.min_context}: use smaller patches, or lower target_scale or min_context"
            )

    def draw(self, images: Images, sample_numbers_B: Integers, seed: int) -> BlockMasks:
        """The blocks of each image, which depend on its grid, its number and the seed alone.

        Blocks are placed anew, up to 20 times, until the context has ``min_context`` patches. If it never has, all
        target blocks are placed where the first one is.
        """
        rows_B1 = np.array([grid.rows for grid in images.grids])[:, None]
        columns_B1 = np.array([grid.columns for grid in images.grids])[:, None]
        scale_BT, aspect_BT, context_scale_B1, place_BAT2 = self._uniform(sample_numbers_B, seed)
        height_BT, width_BT = block_size(
            rows_B1, columns_B1, _between(scale_BT, self.target_scale), _between(aspect_BT, self.target_aspect)
        )
        context_size = block_size(rows_B1, columns_B1, _between(context_scale_B1, self.context_scale), 1.0)
        inside = _Inside(images, rows_B1, columns_B1)
        target_BTN, context_BN = np.empty(0), np.empty(0)
        unsettled_B = np.ones(len(rows_B1), dtype=bool)
        for attempt in range(ATTEMPTS + 1):
            place_BT2 = place_BAT2[:, min(attempt, ATTEMPTS - 1)]
            size = height_BT, width_BT
            if attempt == ATTEMPTS:
                place_BT2, size = place_BT2.copy(), (height_BT[:, :1], width_BT[:, :1])
                place_BT2[:, :-1] = place_BT2[:, :1]
            drawn_BTN = inside(place_BT2[:, :-1], *size)
            left_BN = inside(place_BT2[:, -1:], *context_size)[:, 0] & ~drawn_BTN.any(1)
            if attempt == 0:
                target_BTN, context_BN = drawn_BTN, left_BN
            target_BTN[unsettled_B], context_BN[unsettled_B] = drawn_BTN[unsettled_B], left_BN[unsettled_B]
            unsettled_B = context_BN.sum(1) < self.min_context
            if not unsettled_B.any():
                break
        return BlockMasks(context_BN, target_BTN)

    def _uniform(self, sample_numbers_B: Integers, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Numbers in [0, 1): scales and aspects of targets, the context's scale, places of all blocks per attempt."""
        blocks = self.num_targets
        size = 2 * blocks + 1 + ATTEMPTS * (blocks + 1) * 2
        drawn_BK = keyed_uniform(seed, "i-jepa blocks", sample_numbers_B[:, None] * size + np.arange(size))
        scale_BT, aspect_BT, context_B1, place_BK = np.split(drawn_BK, [blocks, 2 * blocks, 2 * blocks + 1], axis=1)
        return scale_BT, aspect_BT, context_B1, place_BK.reshape(-1, ATTEMPTS, blocks + 1, 2)

    def _smallest_context(self, grid: PatchGrid) -> int:
        height, width = block_size(np.array(grid.rows), np.array(grid.columns), np.array(self.context_scale[0]), 1.0)
        return int(height * width)

    def _largest_target(self, grid: PatchGrid) -> int:
        rows, columns, scale = np.array(grid.rows), np.array(grid.columns), np.array(self.target_scale[1])
        low, high = self.target_aspect
        return int(block_size(rows, columns, scale, high)[0] * block_size(rows, columns, scale, low)[1])


def block_size(rows: Integers, columns: Integers, scale: Floats, aspect: Floats | float) -> tuple[Integers, Integers]:
    """Height and width of a block, rounded as in the authors' code, and at most the image's.

    >>> height, width = block_size(np.array(14), np.array(14), np.array(0.2), 1.5)  # 39 patches: 7.6 by 5.1
    >>> int(height), int(width)
    (8, 5)
    """
    area = np.maximum(1, np.floor(rows * columns * scale))
    height = np.clip(np.rint(np.sqrt(area * aspect)), 1, rows).astype(np.int64)
    width = np.clip(np.rint(np.sqrt(area / aspect)), 1, columns).astype(np.int64)
    return height, width


class _Inside:
    """Which patches of a batch lie in blocks."""

    def __init__(self, images: Images, rows_B1: Integers, columns_B1: Integers) -> None:
        self.rows_B1, self.columns_B1 = rows_B1, columns_B1
        index_N = np.arange(images.patches_BNF.shape[1])
        self.row_B1N, self.column_B1N = index_N // columns_B1[..., None], index_N % columns_B1[..., None]

    def __call__(self, place_BT2: Floats, height_BT: Integers, width_BT: Integers) -> Flags:
        """``[B, T, N]``: a place of (0, 0) is the top left, and (1, 1) would be the bottom right, of all there are."""
        top_BT1 = np.floor(place_BT2[..., 0] * (self.rows_B1 - height_BT + 1))[..., None]
        left_BT1 = np.floor(place_BT2[..., 1] * (self.columns_B1 - width_BT + 1))[..., None]
        in_rows = (self.row_B1N >= top_BT1) & (self.row_B1N < top_BT1 + height_BT[..., None])
        in_columns = (self.column_B1N >= left_BT1) & (self.column_B1N < left_BT1 + width_BT[..., None])
        return in_rows & in_columns


def _between(uniform: Floats, bounds: tuple[float, float]) -> Floats:
    low, high = bounds
    return low + uniform * (high - low)
