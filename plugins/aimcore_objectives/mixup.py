"""Mixup: convex combinations of pairs of images and of their labels (arXiv:1710.09412).

Everything is a function of seed and sample number: the partner of an image, and its share.

Shape suffixes: B batch, T attempts.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore import Batch, Images
from aimcore.contracts.randomness import keyed_uniform

LEAST_ALPHA, MOST_ALPHA = 0.1, 2.0
_ATTEMPTS = 64

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Mixed(NamedTuple):
    """A batch of mixed images: each is ``share_B`` of itself and the rest of its partner."""

    images: Images
    partner_B: Tensor
    """Index of the partner in the batch, int64."""
    share_B: Tensor
    """Share of the image itself, from 0 to 1; 1 if it has no partner."""


def mixed(batch: Batch, alpha: float) -> Mixed:
    """Mix each image with the image of the neighbouring sample number: 0 with 1, 2 with 3, and so on.

    Which images are neighbours is random, and changes from epoch to epoch. Any number of processes that each read an
    even number of images mixes the same pairs. An image whose neighbour is not in the batch, or has another grid, stays
    as it is.
    """
    patches_BNF = batch.images.patches_BNF
    numbers_B = batch.sample_numbers_B.numpy()
    partner_B = _partners(numbers_B, batch.images)
    share_B = np.where(partner_B == np.arange(len(numbers_B)), 1.0, beta_shares(batch.seed, numbers_B, alpha))
    partner = torch.from_numpy(partner_B).to(patches_BNF.device)
    share = torch.from_numpy(share_B).to(patches_BNF.device, patches_BNF.dtype)
    mixed_BNF = torch.lerp(patches_BNF[partner], patches_BNF, share[:, None, None])
    return Mixed(attrs.evolve(batch.images, patches_BNF=mixed_BNF), partner, share)


def _partners(numbers_B: Integers, images: Images) -> Integers:
    """Return the index of each image's partner in the batch; an image without a partner is its own."""
    places = {int(number): place for place, number in enumerate(numbers_B)}
    found = [places.get(int(number) ^ 1, place) for place, number in enumerate(numbers_B)]
    alike = [images.grids[one] == images.grids[other] for one, other in enumerate(found)]
    return np.where(alike, found, np.arange(len(found)))


def beta_shares(seed: int, numbers_B: Integers, alpha: float) -> Floats:
    """Draw from Beta(alpha, alpha) for each sample number.

    By Jöhnk's method: of uniform u and v, ``u^(1/alpha) / (u^(1/alpha) + v^(1/alpha))`` is accepted if the denominator
    is at most 1. With alpha up to 2, at least one attempt in six is accepted; the chance that all 64 fail is below
    1e-5, and then the share is one half.
    """
    attempt_BT2 = (numbers_B[:, None, None] * _ATTEMPTS + np.arange(_ATTEMPTS)[:, None]) * 2 + np.arange(2)
    power_BT2 = keyed_uniform(seed, "mixup", attempt_BT2) ** (1 / alpha)
    total_BT = power_BT2.sum(-1)
    accepted_BT = (total_BT > 0) & (total_BT <= 1)
    first_B = accepted_BT.argmax(1)
    rows_B = np.arange(len(first_B))
    share_B = power_BT2[rows_B, first_B, 0] / np.where(accepted_BT, total_BT, 1)[rows_B, first_B]
    shares_B: Floats = np.where(accepted_BT.any(1), share_B, 0.5)
    return shares_B
