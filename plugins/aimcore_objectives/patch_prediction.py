"""What objectives that predict patches of images have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from aimcore import (
    Batch,
    Extra,
    Features,
    Head,
    Loss,
    Objective,
    ObjectiveModule,
    PredictedPatches,
    Target,
    TrunkModule,
    View,
    built_target,
)
from aimcore.contracts.component import settings
from aimcore_objectives.steps import Steps, drawn_patches, patch_losses, scored_loss


@settings
class PatchObjective(Objective):
    """An objective that predicts the values of a target, and needs what they depend on in its batches."""

    target: Target

    @property
    def views(self) -> tuple[View, ...]:
        """The views of its target."""
        return self.target.views

    @property
    def extras(self) -> tuple[Extra, ...]:
        """The extras of its target."""
        return self.target.extras


class PatchPredictionModule(ObjectiveModule):
    """A trunk with a head that predicts a target of patches; there is one loss, named ``loss_name``."""

    loss_name: ClassVar[str]

    def __init__(self, trunk: TrunkModule, head: Head, target: Target) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head.build(trunk.width, target.num_outputs(trunk.patch_size, trunk.num_channels))
        self.target = built_target(target, trunk.patch_size, trunk.num_channels)

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the loss over all scored patches."""
        features, where_M, steps = self._read(batch)
        losses = patch_losses(self.target, batch, steps)
        loss_M = self.head.losses(features, steps.attention, where_M, losses)
        return {self.loss_name: scored_loss(self.target, steps, loss_M)}

    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        """Return the predictions of the scored patches in raster order."""
        predictions_MK, steps = self._predict(batch)
        return drawn_patches(self.target, batch, steps, predictions_MK)

    def _predict(self, batch: Batch) -> tuple[Tensor, Steps]:
        """Return predictions ``[M, K]`` of the patches at the scored steps, and the steps."""
        features, where_M, steps = self._read(batch)
        return self.head(features, steps.attention, where_M), steps

    @abstractmethod
    def _read(self, batch: Batch) -> tuple[Features, Tensor, Steps]:
        """Return the trunk's features, the flat positions ``[M]`` whose outputs predict, and the scored steps."""
