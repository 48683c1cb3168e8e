"""Where a run starts: at its own newest checkpoint, at that of its parent, or at step 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from aimcore.engine import checkpoints
from aimcore.engine.checkpoint_copies import copies_of
from aimcore.engine.distributed import on_first_rank
from aimcore.engine.metrics_file import in_ranges, missing_steps
from aimcore.engine.saved_checkpoints import require_new
from aimcore.engine.training_engine import TrainingEngine
from aimcore.experiment import Experiment
from aimcore.io.metrics_lines import Line, read_metrics
from aimcore.io.run_folder import RunFolder


def begin(engine: TrainingEngine, folder: Path, *, resume: bool) -> float:
    """Load the checkpoint that the run continues, if there is one; return the seconds of training before it.

    Raises:
        RunFolderError: there are checkpoints, and ``resume`` is not set.
        NothingToBeginWith: the experiment is a branch, and its parent run has no such checkpoint.
        CheckpointDamaged, CheckpointMismatch: the checkpoint to begin with cannot be used.
    """
    experiment = engine.experiment
    if not resume:
        on_first_rank(lambda: require_new(folder))
    else:
        on_first_rank(lambda: _restore_copy(experiment, folder))
    manifest = checkpoints.resume(engine, folder) if resume else None
    if manifest:
        logger.info("{}: continuing from step {}", experiment.name, manifest.step)
        on_first_rank(lambda: _warn_of_missing(experiment, folder, manifest.step))
        return manifest.seconds
    branch = experiment.branch
    if branch is not None:
        checkpoints.begin_branch(engine, folder, branch)
        logger.info("{}: branching from {} at step {}", experiment.name, branch.experiment, branch.step)
    return 0.0


def _restore_copy(experiment: Experiment, folder: Path) -> None:
    """Copy the newest checkpoint back from where copies are kept, if the run has none of its own."""
    copies = copies_of(experiment)
    if copies is None or RunFolder(folder).newest_checkpoint() is not None:
        return
    restored = copies.restore(RunFolder(folder))
    if restored is not None:
        logger.info("{}: copied {} back from {}", experiment.name, restored.name, copies.url)


def _warn_of_missing(experiment: Experiment, folder: Path, num_done: int) -> None:
    missing = missing_lines(experiment, read_metrics(folder), num_done)
    if missing:
        logger.warning(
            "{}: {} has lost the lines of steps {}, before the checkpoint of step {}. Training continues and gives the "
            "same weights; the summary records what is missing. If you have a copy of the file, stop, put it back, and "
            "resume again",
            experiment.name,
            RunFolder(folder).metrics,
            missing,
            num_done,
        )


def missing_lines(experiment: Experiment, lines: Sequence[Line], num_done: int) -> str:
    """Return the logged steps before ``num_done`` that have no line, such as ``"4 to 8"``; empty if all have one."""
    return in_ranges(missing_steps(lines, experiment, num_done), experiment.log_every)
