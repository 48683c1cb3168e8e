"""What a run begins with: initial weights with their hash, or what another run of its study left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.initial_weights import hash_of
from aimcore.engine.saved_checkpoints import end_weights
from aimcore.experiment import Branch, Experiment, Study
from aimcore.io.run_folder import StudyFolder
from aimcore.running.branching import continuation_problems
from aimcore.running.recorded_recipes import recorded_experiment


def pinned(experiment: Experiment) -> Experiment:
    """``experiment`` with the hash of its initial weights; every process must call this, and gets the same.

    Raises:
        WeightsNotFound: the file cannot be read.
    """
    weights: Any = experiment.initial_weights
    if weights is None or weights.sha256 is not None or weights.url is None:
        return experiment  # the weights of another experiment do not exist yet
    url = weights.url
    found = on_first_rank(lambda: hash_of(url))
    return cast(Experiment, attrs.evolve(cast(Any, experiment), initial_weights=attrs.evolve(weights, sha256=found)))


def pinned_study(study: Study) -> Study:
    """``study`` with every experiment :func:`pinned`."""
    return cast(Study, attrs.evolve(cast(Any, study), experiments=[pinned(one) for one in study.experiments]))


def steps_to_keep(study: Study, experiment: Experiment) -> frozenset[int]:
    """Steps of ``experiment`` that branches of the study continue from, also branches that are not run now."""
    branches = (other.branch for other in (*study.experiments, *study.left_out))
    return frozenset(one.step for one in branches if one is not None and one.experiment == experiment.name)


def with_parent(experiment: Experiment, out: Path) -> tuple[Experiment, Mapping[str, Any] | None]:
    """``experiment`` as it begins, and what of another run of the study it begins with, for the summary.

    The name of another run whose weights it takes is replaced by their file and hash. A branch is checked again: the
    recorded run must be one that it may continue. Every process calls this.

    Raises:
        InvalidValue: it may not continue the recorded run.
        NothingToBeginWith, CheckpointDamaged: the weights do not exist, or are not as they were saved.
    """
    branch, weights = experiment.branch, experiment.initial_weights
    if branch is not None:
        on_first_rank(lambda: _require_branch(experiment, branch, out))
        return experiment, {"experiment": branch.experiment, "step": branch.step}
    if weights is None or weights.experiment is None:
        return experiment, None
    name = weights.experiment
    found = on_first_rank(lambda: end_weights(out, name))
    initial = attrs.evolve(cast(Any, weights), experiment=None, url=str(found.path), sha256=found.sha256)
    evolved = attrs.evolve(cast(Any, experiment), initial_weights=initial)
    return evolved, {"experiment": name, "sha256": found.sha256}


def _require_branch(experiment: Experiment, branch: Branch, out: Path) -> None:
    other = recorded_experiment(StudyFolder(out).run(branch.experiment))
    problems = [Problem("branch.experiment", other)] if isinstance(other, str) else []
    problems += continuation_problems(experiment, branch, other) if isinstance(other, Experiment) else []
    if problems:
        raise InvalidValue(f"experiment {experiment.name!r}", problems)
