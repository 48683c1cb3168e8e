"""Checks of an experiment against other runs: those that it begins with, and those with the same outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.contracts.messages import shown
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.checkpoint_copies import CheckpointCopies
from aimcore.engine.module_building import module_on_meta
from aimcore.engine.saved_checkpoints import end_weights
from aimcore.engine.vocabularies import require_vocabulary, vocabulary
from aimcore.engine.weights_fit import fitting
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.experiment import Branch, Experiment, Study, Weights
from aimcore.io.run_folder import RunFolder, step_of
from aimcore.running.branching import continuation_problems
from aimcore.running.recorded_recipes import recorded_experiment


def tracker_problems(experiment: Experiment, experiments: Sequence[Experiment]) -> Iterator[Problem]:
    """Yield trackers of ``experiment`` that cannot write, or would overwrite the metrics of an earlier tracker."""
    owners: dict[str, str] = {}
    for other in experiments:
        for number, tracker in enumerate(other.trackers):
            path = f"{other.name}.trackers.{number}"
            try:
                place = tracker.destination(other.name)
            except AimcoreError as error:
                if other is experiment:
                    yield Problem(f"trackers.{number}", str(error))
                continue
            if place is not None and owners.setdefault(place, path) != path and other is experiment:
                hint = "give each run its own place, as by '{run}' in a url"
                yield Problem(f"trackers.{number}", f"writes to {shown(place)}, as {owners[place]} does: {hint}")


def cache_problems(url: str | None) -> Iterator[Problem]:
    """Yield why features cannot be stored at ``url``; without this check the error would come after training."""
    if url is not None:
        try:
            FeatureCache(url)
        except InvalidValue as error:
            yield from (Problem("features_cache", message) for _, message in error.problems)


def copies_problems(experiment: Experiment) -> Iterator[Problem]:
    """Yield why checkpoints cannot be copied to the URL in the engine's settings."""
    url = experiment.engine.checkpoint_copies
    if url is None:
        return
    try:
        CheckpointCopies(url, experiment.name, experiment.engine.keep_checkpoints).require_writable()
    except (OSError, AimcoreError) as error:
        yield Problem("engine.checkpoint_copies", f"checkpoints cannot be copied to {shown(url)}: {error}")


def branch_problems(experiment: Experiment, study: Study, out: Path | None) -> Iterator[Problem]:
    """Yield why ``experiment`` cannot continue the run that its branch names.

    Args:
        experiment: one of the study.
        study: the study that is about to run.
        out: the study's folder; None checks values alone.
    """
    branch = experiment.branch
    if branch is None:
        return
    other = _earlier(branch.experiment, experiment, study, out)
    if isinstance(other, Experiment):
        yield from continuation_problems(experiment, branch, other)
        yield from _missing_checkpoint(branch, study, out)
    else:
        yield Problem("branch.experiment", other)


def earlier_weight_problems(
    experiment: Experiment, module: ObjectiveModule, study: Study, out: Path | None
) -> Iterator[Problem]:
    """Yield why ``experiment`` cannot begin with the weights of earlier experiments that it names.

    Args:
        experiment: one of the study.
        module: its module, which may be on the meta device.
        study: the study that is about to run.
        out: the study's folder; None checks values alone.
    """
    for path, weights in experiment.weights_by_path.items():
        if weights.experiment is None:
            continue
        other = _earlier(weights.experiment, experiment, study, out)
        if isinstance(other, Experiment) and other.num_steps == 0:
            text = f"{other.name!r} trains nothing, so that it has no weights of its own: name its initial weights"
            yield Problem(f"{path}.experiment", text)
        elif isinstance(other, Experiment):
            yield from (Problem(path, text) for text in _misfits(experiment, module, weights, other))
            missing = _missing_weights(weights.experiment, study, out)
            yield from (Problem(f"{path}.experiment", text) for text in missing)
        else:
            yield Problem(f"{path}.experiment", other)


def _earlier(name: str, experiment: Experiment, study: Study, out: Path | None) -> Experiment | str:
    """Return the experiment ``name``, from earlier in the study or from ``out``, or say why it is missing."""
    names = [one.name for one in study.experiments]
    if name in names[: names.index(experiment.name)]:
        return study.experiments[names.index(name)]
    if name in names:
        return f"{name!r} must come before {experiment.name!r} in the study"
    if out is not None and RunFolder(out / name).recipe.is_file():
        return recorded_experiment(RunFolder(out / name))
    left_out = {one.name: one for one in study.left_out}
    if name in left_out and out is None:
        return left_out[name]
    if name in left_out:
        return f"{out} holds no run of {name!r}: run it too (--only {_in_file(name)}), or --resume where it was run"
    return (
        f"no experiment called {name!r} is earlier in the study ({', '.join(names)}), nor was one run in "
        f"{out or 'its folder'}: run the whole study, or give the folder it was run in, by --out DIR --resume"
    )


def _in_file(name: str) -> str:
    """Return the name that an experiment has in the study's file: ``--only`` selects all of its seeds.

    >>> _in_file("pretrain-seed-1"), _in_file("pretrain")
    ('pretrain', 'pretrain')
    """
    return re.sub(r"-seed-\d+$", "", name)


def _missing_checkpoint(branch: Branch, study: Study, out: Path | None) -> Iterator[Problem]:
    """Yield a checkpoint that does not exist, and that the other run will not save any more."""
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
            + ("run it again in another --out" if is_run else f"run it too (--only {_in_file(branch.experiment)})"),
        )


def _misfits(experiment: Experiment, module: ObjectiveModule, weights: Weights, other: Experiment) -> Iterator[str]:
    """Yield why this run cannot take weights that the other one will have; found without weights in memory."""
    try:
        fitting(module_on_meta(other).state_dict(), experiment.trunk, module, weights)
        require_vocabulary(experiment, module, weights, vocabulary(other))
    except AimcoreError as error:
        yield str(error)


def _missing_weights(name: str, study: Study, out: Path | None) -> Iterator[str]:
    """Yield the problem if run ``name`` does not run now and was not trained to its end."""
    if out is None or any(one.name == name for one in study.experiments):
        return

    try:
        end_weights(out, name)
    except AimcoreError as error:
        yield str(error)
