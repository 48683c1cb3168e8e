"""Orderings: the order in which an autoregressive encoder reads patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from aimcore.contracts.component import Component
from aimcore.contracts.images import PatchGrid


class Ordering(Component, ABC):
    """The order in which an autoregressive encoder reads the patches of an image."""

    __slots__ = ()
    role: ClassVar[str] = "orderings"

    @abstractmethod
    def permutation(self, grid: PatchGrid) -> Tensor:
        """``[N]`` int64: the raster index of the patch read at each step. Any rectangle must do."""
