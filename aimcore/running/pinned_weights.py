"""Initial weights with the hash of their file, so that the recipe records their content."""

from __future__ import annotations

from typing import Any, cast

import attrs

from aimcore.engine.distributed import on_first_rank
from aimcore.engine.initial_weights import hash_of
from aimcore.experiment import Experiment, Study


def pinned(experiment: Experiment) -> Experiment:
    """``experiment`` with the hash of its initial weights; every process must call this, and gets the same.

    Raises:
        WeightsNotFound: the file cannot be read.
    """
    weights: Any = experiment.initial_weights
    if weights is None or weights.sha256 is not None or weights.url is None:
        return experiment  # what another experiment ends with is not there yet
    url = weights.url
    found = on_first_rank(lambda: hash_of(url))
    return cast(Experiment, attrs.evolve(cast(Any, experiment), initial_weights=attrs.evolve(weights, sha256=found)))


def pinned_study(study: Study) -> Study:
    """``study`` with every experiment :func:`pinned`."""
    return cast(Study, attrs.evolve(cast(Any, study), experiments=[pinned(one) for one in study.experiments]))
