"""A small convolutional trunk whose tokens have a coarser grid than the patches.

Shape suffixes: B batch, C channels, D width, R rows, S columns (of either stage), N tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Features, Images, PatchGrid, Problem, Reading, Trunk, TrunkModule, at_least, component
from aimcore.contracts import limits


@component("convnet", paper="arXiv:2201.03545, section 2")
class ConvNet(Trunk):
    """Two stages of ConvNeXt blocks; between them, 2 x 2 positions are merged into one.

    The stem embeds patches without overlap, as in the paper. A block is a depthwise 7 x 7 convolution, a LayerNorm and
    a feed-forward network of four times the width, added to its input. Tokens are those of the second stage, after a
    LayerNorm. So there are a quarter as many tokens as patches, and only objectives that do not treat tokens as patches
    can train this trunk (``Objective.any_grid``).

    Departures from the paper: two stages instead of four, and neither LayerScale nor stochastic depth.
    """

    width: int
    """Width of the second stage; the first has half of it."""
    depths: tuple[int, int] = (1, 2)
    """Blocks of each stage. Probes can read those of the second."""
    patch_size: int = 4

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that are not positive, and an odd width."""
        yield from at_least("width", self.width, 2, limits.WIDTH)
        yield from at_least("patch_size", self.patch_size, 1, limits.PATCH_SIDE)
        for stage, depth in enumerate(self.depths):
            yield from at_least(f"depths.{stage}", depth, 1, limits.DEPTH)
        if self.width % 2:
            yield Problem("width", f"must be even, got {self.width}")

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """Return a grid of half as many rows and columns."""
        return PatchGrid(grid.rows // 2, grid.columns // 2)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        """Yield a problem if rows or columns are odd."""
        if grid.rows % 2 or grid.columns % 2:
            yield f"it merges 2 x 2 patches, and {grid.rows} x {grid.columns} cannot be halved: change data.image_size"

    def build(self) -> ConvNetModule:
        """Build the module with fresh weights."""
        return ConvNetModule(self)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A tiny one."""
        return (cls(width=16),)


class ConvNetModule(TrunkModule):
    """The module of :class:`ConvNet`."""

    def __init__(self, config: ConvNet) -> None:
        super().__init__()
        self.width, self.depth = config.width, config.depths[1]
        self.patch_size, self.num_channels = config.patch_size, 3
        first = config.width // 2
        self.stem = nn.Conv2d(self.num_channels, first, config.patch_size, stride=config.patch_size)
        self.stem_norm = nn.LayerNorm(first, eps=1e-6)
        self.first = nn.Sequential(*(Block(first) for _ in range(config.depths[0])))
        self.merge_norm = nn.LayerNorm(first, eps=1e-6)
        self.merge = nn.Conv2d(first, config.width, 2, stride=2)
        self.second = nn.ModuleList(Block(config.width) for _ in range(config.depths[1]))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images``, which have one size. A convolution has no attention, so ``reading`` only chooses layers."""
        maps_BDRS = self.stem(images.pixels_BCHW.to(self.stem.weight.dtype))
        maps_BRSD = self.first(self.stem_norm(channels_last(maps_BDRS)))
        maps_BRSD = channels_last(self.merge(channels_first(self.merge_norm(maps_BRSD))))
        outputs = []
        for block in self.second:
            maps_BRSD = block(maps_BRSD)
            outputs.append(maps_BRSD.flatten(1, 2))  # [B, R, S, D] -> [B, N, D]
        number, rows, columns, _ = maps_BRSD.shape
        positions_N2 = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
        positions_BN2 = positions_N2.to(maps_BRSD.device).expand(number, -1, -1)
        layers = tuple(outputs[index] for index in reading.layers)
        valid_BN = torch.ones_like(positions_BN2[..., 0], dtype=torch.bool)
        return Features(self.norm(outputs[-1]), positions_BN2, valid_BN, layers)


class Block(nn.Module):
    """A ConvNeXt block: ``x + ffn(norm(depthwise(x)))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, maps_BRSD: Tensor) -> Tensor:
        """``[B, R, S, D]`` in, ``[B, R, S, D]`` out."""
        mixed_BRSD = channels_last(self.depthwise(channels_first(maps_BRSD)))
        result: Tensor = maps_BRSD + self.fc2(functional.gelu(self.fc1(self.norm(mixed_BRSD))))
        return result


def channels_last(maps_BDRS: Tensor) -> Tensor:
    """``[B, D, R, S]`` to ``[B, R, S, D]``."""
    return maps_BDRS.permute(0, 2, 3, 1)


def channels_first(maps_BRSD: Tensor) -> Tensor:
    """``[B, R, S, D]`` to ``[B, D, R, S]``."""
    return maps_BRSD.permute(0, 3, 1, 2)
