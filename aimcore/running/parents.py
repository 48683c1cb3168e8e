"""What a run begins with where another run of its study left it: what must hold, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore import recipe
from aimcore.contracts.assembly import assembled
from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.engine.initial_weights import check_fit, hash_of
from aimcore.engine.saved_checkpoints import end_weights
from aimcore.engine.vocabularies import require_vocabulary, vocabulary
from aimcore.experiment import Branch, Experiment, Study, Weights
from aimcore.io.run_folder import RECIPE_FILE, RunFolder, step_of
from aimcore.running.branching import branch_problems
from aimcore.running.processes import first_process_says


def steps_to_keep(study: Study, experiment: Experiment) -> frozenset[int]:
    """Steps at which branches of the study leave ``experiment``, also those that are not to be run now."""
    branches = (other.branch for other in (*study.experiments, *study.left_out))
    return frozenset(one.step for one in branches if one is not None and one.experiment == experiment.name)


def beginning_problems(experiment: Experiment, study: Study, out: Path | None) -> Iterator[Problem]:
    """Why ``experiment`` cannot begin with what another one leaves.

    Args:
        experiment: one of the study.
        study: what is about to run.
        out: the study's folder; None judges the values alone.
    """
    branch, weights = experiment.branch, experiment.initial_weights
    if branch is not None:
        other = _other(branch.experiment, experiment, study, out)
        if isinstance(other, Experiment):
            yield from branch_problems(experiment, branch, other)
            yield from _lost(branch, study, out)
        else:
            yield Problem("branch.experiment", other)
    if weights is not None and weights.experiment is not None:
        other = _other(weights.experiment, experiment, study, out)
        if isinstance(other, Experiment):
            yield from _misfits(experiment, other)
            yield from _unfinished(weights, study, out)
        else:
            yield Problem("initial_weights.experiment", other)


def _other(name: str, experiment: Experiment, study: Study, out: Path | None) -> Experiment | str:
    """The experiment called ``name``: earlier in the study, or run before in ``out``; or else why it is not there."""
    names = [one.name for one in study.experiments]
    if name in names[: names.index(experiment.name)]:
        return study.experiments[names.index(name)]
    if name in names:
        return f"{name!r} must come before {experiment.name!r} in the study"
    if out is not None and (out / name / RECIPE_FILE).is_file():
        return _recorded(out / name)
    left_out = {one.name: one for one in study.left_out}
    if name in left_out and out is None:
        return left_out[name]
    if name in left_out:
        return f"{out} holds no run of {name!r}: run it too (--only {name}), or --resume where it was run"
    return (
        f"no experiment called {name!r} is earlier in the study ({', '.join(names)}), nor was one run in "
        f"{out or 'its folder'}: run the whole study, or give the folder it was run in, by --out DIR --resume"
    )


def _recorded(run: Path) -> Experiment | str:
    if not (run / RECIPE_FILE).is_file():
        return f"there is no run of {run.name!r} in {run.parent}: run it first, as part of the study"
    try:
        return recipe.load(run / RECIPE_FILE)
    except AimcoreError as error:
        return f"the recipe of {run} cannot be read: {error}"


def _lost(branch: Branch, study: Study, out: Path | None) -> Iterator[Problem]:
    """A checkpoint that is not there, and that the other run will not save any more."""
    if out is None:
        return

    steps = sorted(map(step_of, RunFolder(out / branch.experiment).complete_checkpoints()))
    there = ", ".join(map(str, steps)) or "none"
    is_run = any(one.name == branch.experiment for one in study.experiments)
    if branch.step not in steps and (not is_run or (steps and steps[-1] > branch.step)):
        yield Problem(
            "branch.step",
            f"{out / branch.experiment} holds no checkpoint of step {branch.step} (of these steps: {there}): it was "
            "saved before a branch needed it, or has not come so far; "
            + ("run it again in another --out" if is_run else f"run it too (--only {branch.experiment})"),
        )


def _misfits(experiment: Experiment, other: Experiment) -> Iterator[Problem]:
    """Weights that the other run will have, and this one cannot take: told without any weights in memory."""
    import torch

    with torch.device("meta"):
        mine, theirs = (assembled(one.trunk, one.objective) for one in (experiment, other))
    try:
        check_fit(experiment, mine, theirs.state_dict())
        require_vocabulary(experiment, vocabulary(other))
    except AimcoreError as error:
        yield Problem("initial_weights", str(error))


def _unfinished(weights: Weights, study: Study, out: Path | None) -> Iterator[Problem]:
    """Weights of a run that is not run now, and has not come to its end."""
    if out is None or any(one.name == weights.experiment for one in study.experiments):
        return

    try:
        end_weights(out, cast(str, weights.experiment))
    except AimcoreError as error:
        yield Problem("initial_weights.experiment", str(error))


def located(experiment: Experiment, out: Path) -> Experiment:
    """``experiment`` with the file and hash of another run's weights in place of its name; every process calls it.

    Raises:
        NothingToBeginWith, CheckpointDamaged: the file is not there, or not as it was saved.
    """
    weights: Any = experiment.initial_weights
    if weights is None or weights.experiment is None:
        return experiment
    path, digest = first_process_says(lambda: _end_of(out, weights.experiment))
    evolved = attrs.evolve(weights, experiment=None, url=path, sha256=digest)
    return cast(Experiment, attrs.evolve(cast(Any, experiment), initial_weights=evolved))


def _end_of(out: Path, name: str) -> tuple[str, str]:
    """The path and the hash of the weights that a run ended with."""
    path = str(end_weights(out, name))
    return path, hash_of(path)


def require_branch(experiment: Experiment, out: Path) -> None:
    """See once more, when the run begins, that the run it leaves is one that it may leave, as its recipe tells.

    Raises:
        InvalidValue: it is not.
    """
    branch = experiment.branch
    if branch is None:
        return
    other = _recorded(out / branch.experiment)
    problems = [Problem("branch.experiment", other)] if isinstance(other, str) else []
    problems += branch_problems(experiment, branch, other) if isinstance(other, Experiment) else []
    if problems:
        raise InvalidValue(f"experiment {experiment.name!r}", problems)
