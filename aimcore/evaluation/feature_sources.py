"""Sources of features: a frozen trunk, or the raw pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import attrs
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.trunks import TrunkModule
from aimcore.evaluation.feature_extraction import batch_features, read_trunk
from aimcore.evaluation.feature_keys import Description, described, weights_digest
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.evaluation.feature_writers import FeatureWriter, T_co
from aimcore.evaluation.inference_copy import InferenceCopy
from aimcore.evaluation.raw_pixels import DESCRIPTIONS, pixel_features, read_pixels
from aimcore.experiment import Experiment


class FeatureSource(ABC):
    """Computes features of images."""

    @abstractmethod
    def read(self, batches: Iterable[Batch], writers: Sequence[FeatureWriter[T_co]]) -> list[T_co]:
        """Read the batches once for all writers; return the table of each."""

    @abstractmethod
    def of(self, batch: Batch, kind: FeatureKind) -> Tensor:
        """Return the features of one batch."""

    @abstractmethod
    def description(self) -> Description:
        """Describe everything that features depend on except images and kind, as plain values."""


@attrs.frozen(eq=False)
class FrozenTrunk(FeatureSource):
    """A trunk that reads images with the experiment's objective and ``probe_attention``."""

    trunk: TrunkModule
    experiment: Experiment
    _copy: InferenceCopy = attrs.field(init=False)

    @_copy.default
    def _new_copy(self) -> InferenceCopy:
        return InferenceCopy(self.trunk)

    def _module(self) -> TrunkModule:
        return self._copy.current(None if self.experiment.engine.precision == "fp32" else torch.bfloat16)

    def read(self, batches: Iterable[Batch], writers: Sequence[FeatureWriter[T_co]]) -> list[T_co]:
        """Write the trunk's features of the images."""
        return read_trunk(
            self._module(),
            batches,
            writers,
            objective=self.experiment.objective,
            attention=self.experiment.probe_attention,
            precision=self.experiment.engine.precision,
        )

    def of(self, batch: Batch, kind: FeatureKind) -> Tensor:
        """Return the trunk's features of one batch."""
        return batch_features(
            self._module(),
            batch,
            kind,
            objective=self.experiment.objective,
            attention=self.experiment.probe_attention,
            precision=self.experiment.engine.precision,
        )

    def description(self) -> Description:
        """Describe settings and weights of the trunk, and its reading, which the objective determines."""
        return {
            "trunk": described(self.experiment.trunk),
            "weights": weights_digest(self.trunk),
            "objective": described(self.experiment.objective),
            "attention": self.experiment.probe_attention,
            "precision": self.experiment.engine.precision,
        }


@attrs.frozen(eq=False)
class RawPixels(FeatureSource):
    """The pixels of the images as features."""

    patch_size: int

    def read(self, batches: Iterable[Batch], writers: Sequence[FeatureWriter[T_co]]) -> list[T_co]:
        """Write flattened pixels, or patches with positions."""
        return read_pixels(batches, writers)

    def of(self, batch: Batch, kind: FeatureKind) -> Tensor:
        """Return flattened pixels, or patches with positions."""
        return pixel_features(batch.images, kind.reads)

    def description(self) -> Description:
        """Describe the features and the patch size."""
        return {"raw_pixels": dict(DESCRIPTIONS), "patch_size": self.patch_size}
