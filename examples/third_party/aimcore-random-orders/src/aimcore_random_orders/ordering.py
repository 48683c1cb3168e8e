"""A random order for every sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore import Images, Ordering, PatchGrid, component
from aimcore.contracts.images import padded_orders
from aimcore.contracts.randomness import EVALUATION_SEED, keyed_bits


@component("random_orders", paper="arXiv:2404.09562, section 2; arXiv:2412.01827, section 3")
class RandomOrders(Ordering):
    """Every sample has an order of its own, uniform over all permutations; a picture seen again has another one.

    It is a function of (seed, sample number), so that a resumed run, and any number of processes, draw the same.
    """

    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]``: the order of sample number 0 in evaluation."""
        return torch.from_numpy(random_order(EVALUATION_SEED, 0, grid.num_patches))

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        """``[B, N]``: an order for each sample number, padding last."""
        samples = zip(sample_numbers_B.tolist(), images.grids, strict=True)
        drawn = [torch.from_numpy(random_order(seed, number, grid.num_patches)) for number, grid in samples]
        return padded_orders(drawn, images)


def random_order(seed: int, sample_number: int, length: int) -> npt.NDArray[np.int64]:
    """A permutation of ``length`` patches: their order by random keys, one for each patch."""
    keys = keyed_bits(seed, f"order of {length}", sample_number * length + np.arange(length))
    return np.argsort(keys, kind="stable")
