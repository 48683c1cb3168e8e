"""Targets: what a patch is predicted as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from aimcore.contracts.batches import Batch, View
from aimcore.contracts.component import Component


class Target(Component, ABC):
    """What a patch is predicted as: its pixels, normalised pixels, or a code."""

    __slots__ = ()
    role: ClassVar[str] = "targets"

    @property
    def views(self) -> tuple[View, ...]:
        """Extra renderings of the crop that :meth:`values` reads from ``batch.views``."""
        return ()

    @abstractmethod
    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """K: how many numbers a head predicts per patch."""

    @abstractmethod
    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order."""

    @abstractmethod
    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]`` one loss per scored patch; ``values_M`` are rows of :meth:`values`."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` pixels of predictions, for pictures.

        ``patches_BNF`` are the true patches, for targets that keep less than the pixels (a normalised target needs
        the patch's own mean and variance, which leaks both into the picture).

        Raises:
            NotImplementedError: this target cannot be drawn.
        """
        raise NotImplementedError(f"target {self.name!r} cannot be turned into pixels")
