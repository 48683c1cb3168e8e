"""Initial weights that name another run of a study, as files with hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.engine.checkpoint_checks import WeightsFile
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.saved_checkpoints import end_weights
from aimcore.experiment import Experiment, Weights


def located(experiment: Experiment, study: Path) -> tuple[Experiment, Mapping[str, WeightsFile]]:
    """Return ``experiment`` with files where its initial weights name runs, and these files by the names.

    Every process calls this.

    Args:
        experiment: the experiment.
        study: folder of the study's runs.

    Raises:
        NothingToBeginWith, CheckpointDamaged: the weights do not exist, or have changed since they were saved.
    """
    files = experiment.weights_by_path.values()
    names = dict.fromkeys(weights.experiment for weights in files if weights.experiment is not None)
    if not names:
        return experiment, {}
    found = on_first_rank(lambda: {name: end_weights(study, name) for name in names})
    return with_weights(experiment, [_located(weights, found) for weights in files]), found


def with_weights(experiment: Experiment, weights: Sequence[Weights]) -> Experiment:
    """Return ``experiment`` with other initial weights."""
    return cast(Experiment, attrs.evolve(cast(Any, experiment), initial_weights=weights))


def _located(weights: Weights, ended: Mapping[str, WeightsFile]) -> Weights:
    if weights.experiment is None:
        return weights
    file = ended[weights.experiment]
    return cast(Weights, attrs.evolve(cast(Any, weights), experiment=None, url=str(file.path), sha256=file.sha256))
