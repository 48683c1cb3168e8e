"""Clusters of patches: the space in which patches are compared, and the nearest of several centres.

Shape suffixes: B batch, N patches, P patches of all images, F values per patch, K centres.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Space = Literal["raw", "normalized"]
"""Pixels from 0 to 1; or each patch minus its mean, divided by sqrt(unbiased variance + 1e-6), as in the target
``normalized_pixels``."""
_EPS = 1e-6
_MOST_PRODUCTS = 2**24
"""Largest number of distances that are computed at once: 64 MB."""
_GREY_MEAN, _GREY_SCALE = 0.5, 0.2


def into_space(patches_BNF: Tensor, space: Space) -> Tensor:
    """Return patches of pixels from 0 to 1 in ``space``."""
    if space == "raw":
        return patches_BNF
    mean, scale = _statistics(patches_BNF)
    return (patches_BNF - mean) / scale


def out_of_space(values_BNF: Tensor, space: Space, patches_BNF: Tensor | None) -> Tensor:
    """Return values of ``space`` as pixels, with mean and variance of the true ``patches_BNF`` if they are lost."""
    if space == "raw":
        return values_BNF
    if patches_BNF is None:
        return values_BNF * _GREY_SCALE + _GREY_MEAN
    mean, scale = _statistics(patches_BNF)
    return values_BNF * scale + mean


def _statistics(patches_BNF: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(patches_BNF, dim=-1, keepdim=True, correction=1)
    return mean, (variance + _EPS).sqrt()


def nearest(patches_PF: Tensor, centres_KF: Tensor) -> Tensor:
    """``[P]``: the index of the nearest centre of each patch, the first of several.

    >>> nearest(torch.tensor([[0.0, 1.0], [5.0, 4.0]]), torch.tensor([[0.0, 0.0], [4.0, 4.0]])).tolist()
    [0, 1]
    """
    half_K = centres_KF.square().sum(1) / 2
    # |x - c|^2 / 2 = |x|^2 / 2 - (x c - |c|^2 / 2), and |x|^2 is the same for all centres.
    pieces = torch.split(patches_PF, max(1, _MOST_PRODUCTS // len(centres_KF)))
    return torch.cat([(piece_PF @ centres_KF.T - half_K).argmax(1) for piece_PF in pieces])
