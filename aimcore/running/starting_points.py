"""Starting points of runs: initial weights with their hashes, or a checkpoint or weights of another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.initial_weights import hash_of
from aimcore.engine.located_weights import located, with_weights
from aimcore.experiment import Branch, Experiment, Study, Weights
from aimcore.io.run_folder import StudyFolder
from aimcore.running.branching import continuation_problems
from aimcore.running.recorded_recipes import recorded_experiment


def pinned(experiment: Experiment) -> Experiment:
    """Return ``experiment`` with the hashes of its initial weights. Every process must call this, and gets the same.

    Raises:
        WeightsNotFound: a file cannot be read.
    """
    files = experiment.weights_by_path.values()
    # The weights of another experiment do not exist yet.
    urls = [weights.url for weights in files if weights.url is not None and weights.sha256 is None]
    if not urls:
        return experiment
    hashes = on_first_rank(lambda: {url: hash_of(url) for url in dict.fromkeys(urls)})
    return with_weights(experiment, [_pinned(weights, hashes) for weights in files])


def _pinned(weights: Weights, hashes: Mapping[str, str]) -> Weights:
    if weights.url is None or weights.sha256 is not None:
        return weights
    return cast(Weights, attrs.evolve(cast(Any, weights), sha256=hashes[weights.url]))


def pinned_study(study: Study) -> Study:
    """Return ``study`` with every experiment :func:`pinned`."""
    return cast(Study, attrs.evolve(cast(Any, study), experiments=[pinned(one) for one in study.experiments]))


def steps_to_keep(study: Study, experiment: Experiment) -> frozenset[int]:
    """Return the steps of ``experiment`` from which branches of the study continue, even if they do not run now."""
    branches = (other.branch for other in (*study.experiments, *study.left_out))
    return frozenset(one.step for one in branches if one is not None and one.experiment == experiment.name)


def with_parent(experiment: Experiment, out: Path) -> tuple[Experiment, Mapping[str, Any] | None]:
    """Return ``experiment`` with located weights, and a description of its parent run for the summary.

    Names of other runs that supply weights are replaced by their files and hashes. A branch is checked again: it must
    be allowed to continue the recorded run. Every process calls this.

    Raises:
        InvalidValue: the branch may not continue the recorded run.
        NothingToBeginWith, CheckpointDamaged: the weights do not exist, or have changed since they were saved.
    """
    branch, files = experiment.branch, experiment.weights_by_path
    if branch is not None:
        on_first_rank(lambda: _require_branch(experiment, branch, out))
        return experiment, {"experiment": branch.experiment, "step": branch.step}
    evolved, found = located(experiment, out)
    if not found:
        return experiment, None
    parents = {
        weights.part: {"experiment": weights.experiment, "sha256": found[weights.experiment].sha256}
        for weights in files.values()
        if weights.experiment is not None
    }
    return evolved, {"parts": parents} if len(files) > 1 else next(iter(parents.values()))


def _require_branch(experiment: Experiment, branch: Branch, out: Path) -> None:
    other = recorded_experiment(StudyFolder(out).run(branch.experiment))
    problems = [Problem("branch.experiment", other)] if isinstance(other, str) else []
    problems += continuation_problems(experiment, branch, other) if isinstance(other, Experiment) else []
    if problems:
        raise InvalidValue(f"experiment {experiment.name!r}", problems)
