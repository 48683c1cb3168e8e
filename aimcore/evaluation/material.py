"""What evaluations measure on: an experiment's images, read as in validation."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.data import evaluation_batches
from aimcore.evaluation.ranks import rank_and_world_size
from aimcore.experiment import Experiment
from aimcore.roles import OpenSource
from aimcore.values import Batch


@attrs.frozen(eq=False)
class Material:
    """An experiment with its sources open."""

    experiment: Experiment
    train: OpenSource
    validation: OpenSource
    batch_size: int = 256
    """Images per process and forward."""

    @classmethod
    def of(cls, experiment: Experiment) -> Material:
        """Open the sources of ``experiment``.

        Raises:
            AimcoreError: a source is not there.
        """
        return cls(experiment, experiment.data.train.open(), experiment.data.validation.open())

    def batches(self, source: OpenSource, indices: npt.NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """This process's share of ``source``, or of its images ``indices``, as validation reads them."""
        rank, world_size = rank_and_world_size()
        return evaluation_batches(
            self.experiment.data,
            source,
            patch_size=self.experiment.trunk.patch_size,
            views=(),
            text=self.experiment.objective.text,
            batch_size=self.batch_size,
            seed=self.experiment.seed,
            rank=rank,
            world_size=world_size,
            indices=indices,
        )
