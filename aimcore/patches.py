"""Images as sequences of patches: pure tensor functions.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aimcore.values import Images, PatchGrid


def patchify(pixels_BCHW: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches ``[B, N, F]`` in raster order.

    The values of a patch are flattened in the order (row in patch, column in patch, channel), as the pixel targets of
    arXiv:2401.08541, section 4.1, need them.

    Raises:
        ValueError: height or width is no multiple of the patch size.
    """
    batch, channels, height, width = pixels_BCHW.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"image of {height} x {width} px does not divide into patches of {patch_size} px")
    rows, columns = height // patch_size, width // patch_size
    cut = pixels_BCHW.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches_BNF: Tensor, grid: PatchGrid, patch_size: int) -> Tensor:
    """Put patches in raster order back together: the inverse of :func:`patchify`, ``[B, C, H, W]``."""
    batch, _, values = patches_BNF.shape
    channels = values // patch_size**2
    cut = patches_BNF.reshape(batch, grid.rows, grid.columns, patch_size, patch_size, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, grid.rows * patch_size, grid.columns * patch_size)


def images_of(pixels_BCHW: Tensor, patch_size: int) -> Images:
    """Pack a batch of equally large images."""
    batch, _, height, width = pixels_BCHW.shape
    grid = PatchGrid(height // patch_size, width // patch_size)
    return Images(patches_BNF=patchify(pixels_BCHW, patch_size), grids=(grid,) * batch, patch_size=patch_size)


def reorder(values_BN: Tensor, order_BN: Tensor | None) -> Tensor:
    """Take the values ``[B, N, ...]`` of each image in the order of ``order_BN``; None leaves them as they are."""
    if order_BN is None:
        return values_BN
    index = order_BN.reshape(*order_BN.shape, *(1,) * (values_BN.dim() - 2)).expand(-1, -1, *values_BN.shape[2:])
    return values_BN.gather(1, index)


def sincos_positions(places_BN2: Tensor, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions ``[..., width]`` of places ``[..., 2]`` = (row, column), float32.

    The first half of the channels encodes the column, the second half the row; in each half all sines come first, then
    all cosines; frequency k is 10000^(-k / (width / 4)). As in the released encoders of arXiv:2401.08541.

    Raises:
        ValueError: the width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, got {width}")
    quarter = width // 4
    exponents = torch.arange(quarter, dtype=torch.float64, device=places_BN2.device) / quarter
    angles = places_BN2.to(torch.float64).unsqueeze(-1) / 10000**exponents
    row, column = angles.unbind(-2)
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=-1).to(torch.float32)


def order_of(permutation: Callable[[PatchGrid], Tensor], images: Images) -> Tensor:
    """``[B, N]``: the permutation of each image's own grid; what is behind it stays there, padding or not."""
    length, device = images.patches_BNF.shape[1], images.patches_BNF.device
    behind_N = torch.arange(length)
    orders = {grid: torch.cat([permutation(grid), behind_N[grid.num_patches :]]) for grid in set(images.grids)}
    if images.is_uniform:
        return orders[images.grid].to(device).expand(len(images.grids), -1)
    return torch.stack([orders[grid] for grid in images.grids]).to(device)
