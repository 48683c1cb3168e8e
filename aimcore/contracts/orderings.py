"""Orderings: the order in which an autoregressive encoder reads patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from aimcore.contracts.component import Component
from aimcore.contracts.images import Images, PatchGrid, order_of


class Ordering(Component, ABC):
    """The order in which an autoregressive encoder reads the patches of an image."""

    __slots__ = ()
    role: ClassVar[str] = "orderings"

    @abstractmethod
    def permutation(self, grid: PatchGrid) -> Tensor:
        """Return ``[N]`` int64: the raster index of the patch read at each step, for any rectangular grid.

        An ordering whose order differs between samples returns the order of sample number 0 with seed 0.
        """

    def orders(self, images: Images, sample_numbers_B: Tensor, seed: int) -> Tensor:
        """Return ``[B, N]`` int64: the order of each image; by default :meth:`permutation` of its grid.

        Override it for orders that differ between samples, as in arXiv:2404.09562 and arXiv:2412.01827. An order must
        be a function of the image's grid, its sample number and the seed: draw it with
        :mod:`aimcore.contracts.randomness`, so that ranks, workers and resumed runs agree. It must not depend on
        pixels, because it would reveal patches that were not read yet.
        :func:`aimcore.contracts.images.padded_orders` appends the padding.

        Args:
            images: a batch, on any device.
            sample_numbers_B: numbers of the samples, on the CPU.
            seed: the run's seed in training, otherwise :data:`~aimcore.contracts.randomness.EVALUATION_SEED`.
        """
        return order_of(self.permutation, images)
