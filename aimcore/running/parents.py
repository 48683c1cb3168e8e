"""What a run begins with that another run of its study left: where it is, and the recipe of that run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs

from aimcore import recipe
from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.initial_weights import hash_of
from aimcore.engine.saved_checkpoints import end_weights
from aimcore.experiment import Experiment, Study
from aimcore.io.run_folder import RECIPE_FILE
from aimcore.running.branching import continuation_problems


def steps_to_keep(study: Study, experiment: Experiment) -> frozenset[int]:
    """Steps of ``experiment`` that branches of the study continue from, also branches that are not run now."""
    branches = (other.branch for other in (*study.experiments, *study.left_out))
    return frozenset(one.step for one in branches if one is not None and one.experiment == experiment.name)


def recorded_experiment(run: Path) -> Experiment | str:
    """The experiment whose recipe is in the folder ``run``; or why there is none, as a message."""
    if not (run / RECIPE_FILE).is_file():
        return f"there is no run of {run.name!r} in {run.parent}: run it first, as part of the study"
    try:
        return recipe.load(run / RECIPE_FILE)
    except AimcoreError as error:
        return f"the recipe of {run} cannot be read: {error}"


def located(experiment: Experiment, out: Path) -> Experiment:
    """``experiment`` with the file and hash of another run's weights instead of its name; every process calls it.

    Raises:
        NothingToBeginWith, CheckpointDamaged: the file is not there, or not as it was saved.
    """
    weights: Any = experiment.initial_weights
    if weights is None or weights.experiment is None:
        return experiment
    path, digest = on_first_rank(lambda: _end_of(out, weights.experiment))
    evolved = attrs.evolve(weights, experiment=None, url=path, sha256=digest)
    return cast(Experiment, attrs.evolve(cast(Any, experiment), initial_weights=evolved))


def _end_of(out: Path, name: str) -> tuple[str, str]:
    """The path and the hash of the weights that a run ended with."""
    path = str(end_weights(out, name))
    return path, hash_of(path)


def require_branch(experiment: Experiment, out: Path) -> None:
    """Check again, when the run begins, that the recorded run is one that ``experiment`` may continue.

    Raises:
        InvalidValue: it is not.
    """
    branch = experiment.branch
    if branch is None:
        return
    other = recorded_experiment(out / branch.experiment)
    problems = [Problem("branch.experiment", other)] if isinstance(other, str) else []
    problems += continuation_problems(experiment, branch, other) if isinstance(other, Experiment) else []
    if problems:
        raise InvalidValue(f"experiment {experiment.name!r}", problems)
