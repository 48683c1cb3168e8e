"""Learned positions for another grid than the one that they were trained on.

Shape suffixes: N patches, D width, R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from aimcore import AimcoreError, PatchGrid

TABLE = "positions.table"
"""Name of the learned positions in a trunk's state."""


class NotResizable(AimcoreError):
    """The weights have no learned positions, or positions that cannot be interpolated."""


def interpolate_positions(table_ND: Tensor, known: PatchGrid, wanted: PatchGrid) -> Tensor:
    """Interpolate the positions of the grid ``known`` for the grid ``wanted``; both are in raster order.

    Bicubic, with antialiasing along a side that shrinks, and patch centres on patch centres (corners are not aligned).
    The papers do not say how they interpolate.
    """
    if known == wanted:
        return table_ND
    table_1DRC = table_ND.T.reshape(1, -1, known.rows, known.columns)
    # Antialiasing changes nothing along a side that grows, but with it torch uses Keys' kernel (a = -1/2), which
    # reproduces linear functions; without it, torch uses a = -3/4.
    result_1DRC = functional.interpolate(
        table_1DRC.float(), (wanted.rows, wanted.columns), mode="bicubic", align_corners=False, antialias=True
    )
    return result_1DRC.flatten(2)[0].T.to(table_ND.dtype)


def resize_positions(state: Mapping[str, Tensor], grid: PatchGrid | None) -> dict[str, Tensor]:
    """Return ``state`` with its learned positions interpolated for ``grid``, or without them if ``grid`` is None.

    A state does not record the grid of its positions: a table of ``grid.num_patches`` positions is taken for that of
    ``grid`` itself, any other for that of a square grid. Positions are never sliced.

    Raises:
        NotResizable: there are no learned positions, or their number is not a square.
    """
    if grid is None:
        return {name: value for name, value in state.items() if name != TABLE}
    if TABLE not in state:
        raise NotResizable(
            "the weights have no learned positions to interpolate: use fixed ones (ViT: positions='sincos'), or "
            f"initialize them freshly (initial_weights.fresh: {TABLE!r})"
        )
    number = state[TABLE].shape[0]
    side = round(number**0.5)
    if number == grid.num_patches:
        return dict(state)
    if side**2 != number:
        raise NotResizable(
            f"the weights have {number} learned positions: only those of a square grid can be interpolated"
        )
    return {**state, TABLE: interpolate_positions(state[TABLE], PatchGrid(side, side), grid)}
