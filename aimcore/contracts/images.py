"""Images as sequences of patches: grids, packed batches, and the tensor functions that cut and reorder them.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import attrs
import torch
from torch import Tensor


@attrs.frozen(order=True)
class PatchGrid:
    """A rectangle of patches: ``rows`` x ``columns``. Raster index of a patch = row * columns + column."""

    rows: int
    """From top to bottom."""
    columns: int
    """From left to right."""

    @property
    def num_patches(self) -> int:
        """Number of patches in the grid."""
        return self.rows * self.columns


@attrs.frozen(eq=False)
class Images:
    """A batch of images as packed patches in raster order, one grid per image.

    ``patches_BNF`` is padded with zeros after the patches of smaller grids. The values of a patch are flattened in the
    order (row in patch, column in patch, channel).
    """

    patches_BNF: Tensor
    """Normalised pixels."""
    grids: tuple[PatchGrid, ...]
    """The grid of each image."""
    patch_size: int
    """Side of a patch in pixels."""
    padding_is_image: bool = False
    """Whether the patches after an image's grid count as part of the image (arXiv:2411.14402, section 2.4): ordinary
    patches, whose positions continue row by row. Otherwise they are padding: invalid, masked in attention, never
    predicted."""
    sizes: tuple[tuple[int, int], ...] | None = None
    """(height, width) of each image in pixels, if zeros fill its grid at the right and bottom edges; None if every
    image fills its grid."""
    statistics: PixelStatistics | None = None
    """Mean and standard deviation by which the pixels were normalised; None if they were not."""

    @property
    def num_channels(self) -> int:
        """Number of colour channels, computed from the length of a patch."""
        return int(self.patches_BNF.shape[2]) // self.patch_size**2

    @property
    def is_uniform(self) -> bool:
        """Whether all images have the same grid."""
        return len(set(self.grids)) <= 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of patches of each image, without masked padding."""
        if self.padding_is_image:
            return (self.patches_BNF.shape[1],) * len(self.grids)
        return tuple(grid.num_patches for grid in self.grids)

    @property
    def is_padded(self) -> bool:
        """Whether some image has padding that must be masked."""
        return min(self.lengths, default=0) < self.patches_BNF.shape[1]

    @property
    def padding_share(self) -> float:
        """Fraction of the values that are filled with zeros, at the edges of images and as whole patches after them."""
        side = self.patch_size
        sizes = self.sizes or tuple((grid.rows * side, grid.columns * side) for grid in self.grids)
        return 1 - sum(height * width for height, width in sizes) / (self.patches_BNF[..., 0].numel() * side**2)

    @property
    def grid(self) -> PatchGrid:
        """The one grid of a uniform batch.

        Raises:
            ValueError: the grids differ.
        """
        if not self.is_uniform:
            raise ValueError(f"images of different grids: {sorted(set(self.grids))}; use .grids, one per image")
        return self.grids[0]

    @cached_property
    def valid_BN(self) -> Tensor:
        """True for patches of an image, False on padding (in raster order)."""
        lengths_B = torch.tensor(self.lengths)
        steps_N = torch.arange(self.patches_BNF.shape[1])
        return (steps_N < lengths_B[:, None]).to(self.patches_BNF.device)

    @cached_property
    def positions_BN2(self) -> Tensor:
        """(row, column) of every patch in raster order; -1 on padding."""
        length = self.patches_BNF.shape[1]
        if self.is_uniform:
            positions_N2 = _positions(self.grid, length, self.lengths[0]).to(self.patches_BNF.device)
            return positions_N2.expand(len(self.grids), -1, -1)
        positions = [_positions(grid, length, own) for grid, own in zip(self.grids, self.lengths, strict=True)]
        return torch.stack(positions).to(self.patches_BNF.device)

    @cached_property
    def pixels_BCHW(self) -> Tensor:
        """The pixels as ``[B, C, H, W]``, without patches after the grid.

        Raises:
            ValueError: the grids differ.
        """
        return unpatchify(self.patches_BNF[:, : self.grid.num_patches], self.grid, self.patch_size)

    @property
    def unit_patches_BNF(self) -> Tensor:
        """The patches on the scale from 0 to 1, as before normalisation."""
        if self.statistics is None:
            return self.patches_BNF
        mean_F, std_F = self._per_value(self.statistics)
        return self.patches_BNF * std_F + mean_F

    def normalized(self, unit_patches_BNF: Tensor) -> Tensor:
        """Normalise patches on the scale from 0 to 1 as these images were: the inverse of ``unit_patches_BNF``."""
        if self.statistics is None:
            return unit_patches_BNF
        mean_F, std_F = self._per_value(self.statistics)
        return (unit_patches_BNF - mean_F) / std_F

    def _per_value(self, statistics: PixelStatistics) -> tuple[Tensor, Tensor]:
        """``[F]`` each: mean and standard deviation of every value of a patch, in which channels come last."""
        mean_C, std_C = (self.patches_BNF.new_tensor(values) for values in statistics)
        return mean_C.repeat(self.patch_size**2), std_C.repeat(self.patch_size**2)

    def to(self, device: torch.device) -> Images:
        """Return the same images on ``device``."""
        return attrs.evolve(self, patches_BNF=self.patches_BNF.to(device, non_blocking=True))


def patchify(pixels_BCHW: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches ``[B, N, F]`` in raster order.

    The values of a patch are flattened in the order (row in patch, column in patch, channel), as in the pixel targets
    of arXiv:2401.08541, section 4.1.

    Raises:
        ValueError: height or width is not a multiple of the patch size.

    >>> patchify(torch.arange(16).reshape(1, 1, 4, 4), patch_size=2)[0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
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
    """Pack a batch of images of one size, ``[B, C, H, W]``."""
    batch, _, height, width = pixels_BCHW.shape
    grid = PatchGrid(height // patch_size, width // patch_size)
    return Images(patches_BNF=patchify(pixels_BCHW, patch_size), grids=(grid,) * batch, patch_size=patch_size)


def reorder(values_BN: Tensor, order_BN: Tensor | None) -> Tensor:
    """Reorder the values ``[B, N, ...]`` of each image by ``order_BN``; None returns them unchanged.

    >>> reorder(torch.tensor([[10, 11, 12]]), torch.tensor([[2, 0, 1]])).tolist()
    [[12, 10, 11]]
    """
    if order_BN is None:
        return values_BN
    index = order_BN.reshape(*order_BN.shape, *(1,) * (values_BN.dim() - 2)).expand(-1, -1, *values_BN.shape[2:])
    return values_BN.gather(1, index)


def order_of(permutation: Callable[[PatchGrid], Tensor], images: Images) -> Tensor:
    """Return the order ``[B, N]`` of each image by ``permutation`` of its grid; patches after the grid keep theirs."""
    if images.is_uniform:
        one = attrs.evolve(images, patches_BNF=images.patches_BNF[:1], grids=images.grids[:1], sizes=None)
        return padded_orders([permutation(images.grid)], one).expand(len(images.grids), -1)
    orders = {grid: permutation(grid) for grid in set(images.grids)}
    return padded_orders([orders[grid] for grid in images.grids], images)


def padded_orders(orders: Sequence[Tensor], images: Images) -> Tensor:
    """Return ``[B, N]`` on the images' device: the order of each image, then the patches after its grid.

    Args:
        orders: one permutation ``[n]`` per image, of the n patches of its grid.
        images: a batch with N patches per image, padding included.

    >>> images = Images(torch.zeros(2, 3, 1), (PatchGrid(1, 2), PatchGrid(1, 3)), patch_size=1)
    >>> padded_orders([torch.tensor([1, 0]), torch.tensor([2, 0, 1])], images).tolist()
    [[1, 0, 2], [2, 0, 1]]
    """
    after_N = torch.arange(images.patches_BNF.shape[1])
    padded = [torch.cat([order_N, after_N[len(order_N) :]]) for order_N in orders]
    return torch.stack(padded).to(images.patches_BNF.device)


def _positions(grid: PatchGrid, length: int, own: int) -> Tensor:
    index_N = torch.arange(length)
    positions_N2 = torch.stack([index_N // grid.columns, index_N % grid.columns], dim=1)
    positions_N2[own:] = -1
    return positions_N2


class PixelStatistics(NamedTuple):
    """Mean and standard deviation of pixels per channel, on a scale from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Preprocessing(NamedTuple):
    """Preprocessing of pixels that released weights depend on."""

    mean: tuple[float, ...]
    """Mean per channel, subtracted from pixels on a scale from 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation per channel, a divisor of the difference."""
    eval_crop: float
    """Side of the central crop in evaluation, as a fraction of the shorter side."""
