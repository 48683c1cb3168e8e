"""No training: the objective of trunks that are only measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from aimcore import Batch, Loss, Objective, ObjectiveModule, TrunkModule, component


@component("no_training")
class NoTraining(Objective):
    """Train nothing, for experiments with ``num_steps=0``: a frozen trunk is probed as it is, in raster order.

    It requires nothing of the trunk, so that any encoder can be a row of a study: random features, a released encoder,
    or one of another library.
    """

    @property
    def has_losses(self) -> bool:
        """False."""
        return False

    @property
    def any_grid(self) -> bool:
        """True: probes read tokens of any grid."""
        return True

    def build(self, trunk: TrunkModule) -> NoTrainingModule:
        """Build the module, which is the trunk alone."""
        return NoTrainingModule(trunk)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples: the checks of objectives are checks of losses."""
        return ()


class NoTrainingModule(ObjectiveModule):
    """The module of :class:`NoTraining`."""

    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__()
        self.trunk = trunk

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return no counts."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return no losses."""
        return {}
