"""Where a probe's features come from: a frozen trunk, or the pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import attrs

from aimcore.contracts.batches import Batch
from aimcore.contracts.trunks import TrunkModule
from aimcore.evaluation.feature_extraction import read_trunk
from aimcore.evaluation.feature_keys import Description, described, weights_digest
from aimcore.evaluation.feature_writers import Sink, T_co
from aimcore.evaluation.raw_pixels import DESCRIPTIONS, read_pixels
from aimcore.experiment import Experiment


class Origin(ABC):
    """What turns images into features."""

    @abstractmethod
    def read(self, batches: Iterable[Batch], sinks: Sequence[Sink[T_co]]) -> list[T_co]:
        """Read the batches once for all sinks; one table each."""

    @abstractmethod
    def description(self) -> Description:
        """All that features depend on besides images and kind, as plain values."""


@attrs.frozen(eq=False)
class FrozenTrunk(Origin):
    """A trunk, read as the experiment's objective and ``probe_attention`` say."""

    trunk: TrunkModule
    experiment: Experiment

    def read(self, batches: Iterable[Batch], sinks: Sequence[Sink[T_co]]) -> list[T_co]:
        """What the trunk makes of the images."""
        return read_trunk(
            self.trunk,
            batches,
            sinks,
            objective=self.experiment.objective,
            attention=self.experiment.probe_attention,
            precision=self.experiment.engine.precision,
        )

    def description(self) -> Description:
        """Settings and weights of the trunk, and how it reads. The order is the objective's, so that is in it."""
        return {
            "trunk": described(self.experiment.trunk),
            "weights": weights_digest(self.trunk),
            "objective": described(self.experiment.objective),
            "attention": self.experiment.probe_attention,
            "precision": self.experiment.engine.precision,
        }


@attrs.frozen(eq=False)
class RawPixels(Origin):
    """The images themselves."""

    patch_size: int

    def read(self, batches: Iterable[Batch], sinks: Sequence[Sink[T_co]]) -> list[T_co]:
        """Pixels, or patches with positions."""
        return read_pixels(batches, sinks)

    def description(self) -> Description:
        """What they are, and how they are cut."""
        return {"raw_pixels": dict(DESCRIPTIONS), "patch_size": self.patch_size}
