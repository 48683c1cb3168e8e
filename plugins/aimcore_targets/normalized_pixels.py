"""Pixels normalised per patch as targets."""

from __future__ import annotations

import torch
from torch import Tensor

from aimcore import Batch, Target, component

_EPS = 1e-6


@component("normalized_pixels", paper="arXiv:2401.08541, section 4.1 and Table 3a")
class NormalizedPixels(Target):
    """Each patch minus its mean, divided by sqrt(unbiased variance + 1e-6), with squared error: the paper's default.

    Mean and variance are over all values of the patch, colours together. The loss is the mean over the patch's values;
    equation 2 writes the sum, which is F times as large (F = 588 for 14 px patches in colour).
    """

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """Return F, the number of values of a patch."""
        return patch_size**2 * num_channels

    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]``: the normalised patches."""
        mean, scale = _statistics(batch.images.patches_BNF)
        return (batch.images.patches_BNF - mean) / scale

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]``: mean squared error over each patch's values."""
        return (predictions_MK - values_M).square().mean(-1)

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]``: denormalised with mean and variance of the true patch, which leak into the picture."""
        mean, scale = _statistics(patches_BNF)
        return predictions_BNK * scale + mean


def _statistics(patches_BNF: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(patches_BNF, dim=-1, keepdim=True, correction=1)
    return mean, (variance + _EPS).sqrt()
