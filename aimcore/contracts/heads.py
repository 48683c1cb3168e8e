"""Prediction heads: networks from features to predictions of a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
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

    def losses(
        self, features: Features, attention: Attention, where_M: Tensor, loss_of: Callable[[Tensor, slice], Tensor]
    ) -> Tensor:
        """Return the losses ``[M]`` at ``where_M``: those of all predictions of :meth:`forward`. Optional.

        Override it to compute predictions of many outputs in chunks
        (:func:`aimcore.modeling.chunked_outputs.losses_in_chunks`). It must only call parts of this module and use no
        parameter directly: at ZeRO stage 3, parameters are whole only in the forward of their own module.

        Args:
            features: as in ``forward``.
            attention: as in ``forward``.
            where_M: as in ``forward``.
            loss_of: from predictions ``[m, K]`` and the rows of ``where_M`` that they belong to, the losses ``[m]``.
        """
        return loss_of(self(features, attention, where_M), slice(None))
