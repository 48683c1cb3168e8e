"""Where a patch stands: fixed sine-cosine positions, or a learned table, which can be interpolated for another grid.

Shape suffixes: B batch, N patches, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import AimcoreError, Images, PatchGrid
from aimcore.modeling.layers import LearnedPositions
from aimcore.modeling.positions import sincos_positions

TABLE = "positions.table"
"""Name of the learned positions in a trunk's state."""
_MOST_TABLES = 64


class NotResizable(AimcoreError):
    """Weights are not of a kind that can be given to a trunk for another image size."""


class SincosPositions(nn.Module):
    """Adds fixed positions of each patch's true place; tables are kept per grid, not saved."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._tables: dict[tuple[PatchGrid, int, bool, torch.device], Tensor] = {}

    def forward(self, tokens_BND: Tensor, images: Images) -> Tensor:
        """Tokens in raster order, ``[B, N, D]``; the sum is float32."""
        if not images.is_uniform:
            return tokens_BND + sincos_positions(images.places_BN2, self.width)
        key = (images.grid, tokens_BND.shape[1], images.padding_is_image, tokens_BND.device)
        if key not in self._tables:
            if len(self._tables) >= _MOST_TABLES:  # single images at native resolution have ever new grids
                self._tables.clear()
            self._tables[key] = sincos_positions(images.places_BN2[:1], self.width)
        return tokens_BND + self._tables[key]


class GridPositions(LearnedPositions):
    """A learned vector for every place of one grid; another grid's are interpolated from them, where that is wanted."""

    def __init__(self, grid: PatchGrid, width: int) -> None:
        super().__init__(grid.num_patches, width)
        self.grid = grid

    def forward(self, tokens_BND: Tensor, images: Images | None = None) -> Tensor:
        """Add the positions to tokens in raster order; all images have one grid, by default the table's own."""
        if images is None or images.grid == self.grid:
            return super().forward(tokens_BND)
        return tokens_BND + interpolated(self.table, self.grid, images.grid)


def interpolated(table_ND: Tensor, known: PatchGrid, wanted: PatchGrid) -> Tensor:
    """Positions of the grid ``wanted`` from those of the grid ``known``, in raster order.

    Bicubic, antialiased (along a side that shrinks), patch centres on patch centres (corners are not aligned). The
    papers do not say how they interpolate.
    """
    if known == wanted:
        return table_ND
    table_1DRC = table_ND.T.reshape(1, -1, known.rows, known.columns)
    # Antialiasing changes nothing along a side that grows, but torch's kernel is Keys' with it (a = -1/2), which leaves
    # linear functions as they are; without it, a = -3/4.
    found_1DRC = functional.interpolate(
        table_1DRC.float(), (wanted.rows, wanted.columns), mode="bicubic", align_corners=False, antialias=True
    )
    return found_1DRC.flatten(2)[0].T.to(table_ND.dtype)


def with_positions_for(grid: PatchGrid | None, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with its learned positions interpolated for ``grid``, or, where that is None, without them.

    A state does not say which grid its positions are of: as many as ``grid`` has are taken for its own, others for
    those of a square. They are never sliced.

    Raises:
        NotResizable: there are no positions, or they are of no square.
    """
    if grid is None:
        return {name: value for name, value in state.items() if name != TABLE}
    if TABLE not in state:
        raise NotResizable(
            "the weights have no learned positions to interpolate: use fixed ones (ViT: positions='sincos'), or let "
            f"them begin fresh (initial_weights.fresh: {TABLE!r})"
        )
    number = state[TABLE].shape[0]
    side = round(number**0.5)
    if number == grid.num_patches:
        return dict(state)
    if side**2 != number:
        raise NotResizable(f"{number} learned positions are those of no square, and cannot be interpolated")
    return {**state, TABLE: interpolated(state[TABLE], PatchGrid(side, side), grid)}
