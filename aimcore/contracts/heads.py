"""Prediction heads: networks from features to predictions of a target."""

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
        """Build the module, which maps tokens of width ``in_width`` to ``num_outputs`` numbers per scored position."""


class HeadModule(nn.Module, ABC):
    """A network from features to predictions, computed at scored positions only."""

    @abstractmethod
    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """Return predictions ``[M, K]`` at the flat positions ``where_M`` (``b * N + n``, in reading order).

        ``attention`` is the attention of the trunk: a head that mixes tokens must not see more.
        """
