"""Prediction heads: from features to predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from aimcore.contracts.component import Component
from aimcore.contracts.features import Attention, Features


class Head(Component, ABC):
    """A prediction head between trunk and loss, discarded after pre-training."""

    __slots__ = ()
    role: ClassVar[str] = "heads"

    @abstractmethod
    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        """The module: tokens of width ``in_width`` in, ``num_outputs`` numbers per scored position out."""


class HeadModule(nn.Module, ABC):
    """A prediction head: from features to predictions, computed only where a loss is taken."""

    @abstractmethod
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """Predictions ``[M, K]`` at the flat positions ``where_M`` (``b * N + n``, in reading order).

        ``attention`` is what the trunk used: a head that mixes tokens must not see more.
        """
