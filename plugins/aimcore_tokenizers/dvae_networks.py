"""The encoder and decoder of the discrete VAE of DALL-E (arXiv:2102.12092, appendix A), of any size.

Shape suffixes: B batch, C channels, H W pixels, R C rows and columns of the grid, D width, N patches, K codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Problem, at_least, settings
from aimcore.contracts import limits
from aimcore.contracts.component import Checked

PIXEL_MARGIN = 0.1
"""Pixels from 0 to 1 are mapped to 0.1 to 0.9, so that their logits are finite (appendix A.3)."""
_HIDDEN_SHARE = 4
_MOST_GROUPS = 8
_MOST_WIDTH = 2**12
Resampling = Literal["pool", "shuffle"]
"""Between two groups: max-pooling and nearest neighbours (DALL-E), or pixels moved into channels and back."""


@settings
class DVAEShape(Checked):
    """The sizes of a discrete VAE; the defaults are DALL-E's."""

    num_codes: int = 8192
    width: int = 256
    """Channels of the first group of blocks; each further group has twice as many."""
    groups: int = 4
    """Groups of blocks, with a pooling of 2 x 2 between two groups: four give a total stride of 8."""
    blocks_per_group: int = 2
    decoder_input: int = 128
    """Channels between the codes and the first block of the decoder."""
    num_channels: int = 3
    resampling: Resampling = "pool"

    @property
    def stride(self) -> int:
        """Height and width in pixels of the view per code."""
        return int(2 ** (self.groups - 1))

    def problems(self) -> Iterable[Problem]:
        """Yield sizes that no network has."""
        yield from at_least("num_codes", self.num_codes, 2, limits.CLASSES)
        yield from encoder_problems(self.width, self.groups, self.blocks_per_group, self.num_channels)
        yield from at_least("decoder_input", self.decoder_input, 1, limits.WIDTH)


def encoder_problems(width: int, groups: int, blocks_per_group: int, num_channels: int) -> Iterable[Problem]:
    """Yield sizes that no encoder has."""
    yield from at_least("width", width, _HIDDEN_SHARE, _MOST_WIDTH)
    yield from at_least("groups", groups, 1, _MOST_GROUPS)
    yield from at_least("blocks_per_group", blocks_per_group, 1, limits.DEPTH)
    yield from at_least("num_channels", num_channels, 1, limits.CHANNELS)


def with_margin(unit_BCHW: Tensor) -> Tensor:
    """Map pixels from [0, 1] to [0.1, 0.9].

    >>> with_margin(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.1000, 0.5000, 0.9000])
    """
    return (1 - 2 * PIXEL_MARGIN) * unit_BCHW.clamp(0, 1) + PIXEL_MARGIN


def without_margin(pixels_BCHW: Tensor) -> Tensor:
    """Map pixels from [0.1, 0.9] to [0, 1]; values outside are clipped."""
    return ((pixels_BCHW - PIXEL_MARGIN) / (1 - 2 * PIXEL_MARGIN)).clamp(0, 1)


class Encoder(nn.Module):
    """From pixels in [0.1, 0.9] to maps ``[B, D, R, C]``: a convolution of 7 x 7, and groups of residual blocks."""

    def __init__(
        self, width: int, groups: int, blocks_per_group: int, num_channels: int, resampling: Resampling = "pool"
    ) -> None:
        super().__init__()
        self.resampling = resampling
        more = 4 if resampling == "shuffle" else 1  # channels of 2 x 2 pixels, or of their maximum
        widths = [width * 2**group for group in range(groups)]
        num_blocks = groups * blocks_per_group
        self.input = convolution(num_channels, width, 7)
        self.groups = nn.ModuleList(
            _group(before, after, blocks_per_group, num_blocks, kernels=(3, 3, 3, 1))
            for before, after in zip([width, *(more * one for one in widths)], widths, strict=False)
        )
        self.width = widths[-1]

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the maps after each block of the last group; the last are the encoder's output."""
        maps_BDHW = self.input(pixels_BCHW)
        outputs: list[Tensor] = []
        for number, group in enumerate(self.groups):
            if number:
                shuffled = self.resampling == "shuffle"
                maps_BDHW = (functional.pixel_unshuffle if shuffled else functional.max_pool2d)(outputs[-1], 2)
            outputs = []
            for block in cast(nn.ModuleList, group):
                maps_BDHW = block(maps_BDHW)
                outputs.append(maps_BDHW)
        return tuple(outputs)


class Decoder(nn.Module):
    """From shares of codes ``[B, R, C, K]`` to mean and log scale of a logit-Laplace distribution of each pixel."""

    def __init__(self, shape: DVAEShape) -> None:
        super().__init__()
        self.num_channels, self.resampling = shape.num_channels, shape.resampling
        fewer = 4 if shape.resampling == "shuffle" else 1
        widths = [shape.width * 2**group for group in reversed(range(shape.groups))]
        num_blocks = shape.groups * shape.blocks_per_group
        inputs = [shape.decoder_input, *(one // fewer for one in widths)]
        self.input = nn.Linear(shape.num_codes, shape.decoder_input)
        self.groups = nn.ModuleList(
            _group(before, after, shape.blocks_per_group, num_blocks, kernels=(1, 3, 3, 3))
            for before, after in zip(inputs, widths, strict=False)
        )
        self.output = convolution(shape.width, 2 * shape.num_channels, 1)
        nn.init.normal_(self.input.weight, std=1 / sqrt(shape.num_codes))
        nn.init.zeros_(self.input.bias)

    def forward(self, shares_BRCK: Tensor) -> Tensor:
        """``[B, 2 * C, H, W]``: means, then log scales."""
        return self.expand(self.input(shares_BRCK))

    def of_codes(self, codes_BRC: Tensor) -> Tensor:
        """Return the same for one code per place, without a vector of K shares each. Not under ZeRO stage 3."""
        return self.expand(functional.embedding(codes_BRC, self.input.weight.T) + self.input.bias)

    def expand(self, places_BRCD: Tensor) -> Tensor:
        """Return the same for places after the first layer."""
        maps_BDHW = places_BRCD.movedim(-1, 1)
        for number, group in enumerate(self.groups):
            if number:
                maps_BDHW = self._doubled(maps_BDHW)
            for block in cast(nn.ModuleList, group):
                maps_BDHW = block(maps_BDHW)
        found: Tensor = self.output(maps_BDHW.relu())
        return found

    def _doubled(self, maps_BDHW: Tensor) -> Tensor:
        if self.resampling == "shuffle":
            return functional.pixel_shuffle(maps_BDHW, 2)
        return functional.interpolate(maps_BDHW, scale_factor=2.0, mode="nearest")

    def pixels(self, statistics_B2HW: Tensor) -> Tensor:
        """``[B, C, H, W]`` in [0, 1]: the sigmoid of the means, without the margin (appendix A.3)."""
        return without_margin(statistics_B2HW[:, : self.num_channels].sigmoid())


class Block(nn.Module):
    """A residual block of four convolutions, whose last ones are scaled by 1 / (number of blocks)^2."""

    def __init__(self, width: int, out_width: int, num_blocks: int, kernels: tuple[int, int, int, int]) -> None:
        super().__init__()
        hidden = out_width // _HIDDEN_SHARE
        widths = (width, hidden, hidden, hidden, out_width)
        self.gain = 1 / num_blocks**2
        self.skip = nn.Identity() if width == out_width else convolution(width, out_width, 1)
        self.convolutions = nn.ModuleList(
            convolution(before, after, kernel)
            for before, after, kernel in zip(widths, widths[1:], kernels, strict=False)
        )

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        """``[B, D', H, W]``."""
        residual_BDHW = maps_BDHW
        for layer in self.convolutions:
            residual_BDHW = layer(residual_BDHW.relu())
        found: Tensor = self.skip(maps_BDHW) + self.gain * residual_BDHW
        return found


def _group(
    width: int, out_width: int, blocks: int, num_blocks: int, *, kernels: tuple[int, int, int, int]
) -> nn.ModuleList:
    widths = [width, *[out_width] * blocks]
    return nn.ModuleList(Block(before, out_width, num_blocks, kernels) for before in widths[:-1])


def convolution(width: int, out_width: int, kernel: int) -> nn.Conv2d:
    """Return a convolution that keeps height and width, with weights of variance 1 / fan-in and no bias at first."""
    layer = nn.Conv2d(width, out_width, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1 / sqrt(width * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def logit_laplace(statistics_B2HW: Tensor, pixels_BCHW: Tensor) -> Tensor:
    """``[B, C, H, W]``: negative log-density of pixels in (0, 1) (arXiv:2102.12092, equation 2), in nats.

    f(x) = exp(-|logit(x) - mean| / b) / (2 b x (1 - x)), with ln b from the network.

    >>> x, mean, log_scale = 0.25, 0.4, -0.5
    >>> statistics = torch.tensor([mean, log_scale]).reshape(1, 2, 1, 1)
    >>> found = logit_laplace(statistics, torch.full((1, 1, 1, 1), x))
    >>> from math import exp, log
    >>> b = exp(log_scale)
    >>> by_hand = -log(exp(-abs(log(x / (1 - x)) - mean) / b) / (2 * b * x * (1 - x)))
    >>> abs(float(found) - by_hand) < 1e-6
    True
    """
    mean_BCHW, log_scale_BCHW = statistics_B2HW.chunk(2, dim=1)
    distance_BCHW = (torch.logit(pixels_BCHW) - mean_BCHW).abs()
    return distance_BCHW * (-log_scale_BCHW).exp() + log_scale_BCHW + (2 * pixels_BCHW * (1 - pixels_BCHW)).log()
