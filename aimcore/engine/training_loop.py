"""Training of an experiment in a folder. A run that is interrupted and resumed gives the same results."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import attrs

from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.distributed import barrier, from_everyone, on_every_rank, start
from aimcore.engine.metrics_file import mean_losses
from aimcore.engine.parameter_counts import ParameterCounts
from aimcore.engine.run_steps import RunSteps, Validator
from aimcore.engine.starting_checkpoint import begin, missing_lines
from aimcore.engine.training_engine import TrainingEngine
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import CannotWrite, make_folder
from aimcore.io.metrics_lines import read_metrics
from aimcore.io.run_folder import RunFolder


@attrs.frozen(eq=False)
class TrainingResult:
    """How training ended. ``engine`` still holds the trained module, for evaluation; close it afterwards."""

    status: Literal["finished", "interrupted"]
    """A run that was interrupted in its last step is "interrupted" too, although all steps are done and saved."""
    num_steps: int
    """Number of updates, including those before a resumption."""
    losses: Mapping[str, float]
    """Mean of each loss over the last 100 lines of ``metrics.jsonl``."""
    patches_per_second: float | None
    """Rate over all ranks in the steps of this process, without start-up, its first step and saving; None if it made
    no step."""
    seconds: float
    """Wall time of training in seconds, including start-up and the time before a resumption."""
    engine: TrainingEngine
    parameters: ParameterCounts
    missing_metrics: str = ""
    """Logged steps whose lines are missing in ``metrics.jsonl``, such as ``"4 to 8"``; empty if none are missing."""
    peak_memory: int | None = None
    """Peak memory in bytes of the rank with the largest, in the steps of this process; None if it made no step."""
    data_share: float | None = None
    """Share of the time of the steps of this process that it waited for data, of the rank that waited longest, without
    its first step; None if it made no step."""
    num_unreadable: int = 0
    """Number of failed reads of this process since it started; other samples replaced them."""

    @property
    def module(self) -> ObjectiveModule:
        """The trained objective module. At ZeRO stage 3 all ranks must run the same number of forwards."""
        return self.engine.module


def train(
    experiment: Experiment,
    folder: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    keep_steps: Collection[int] = (),
    validate: Validator | None = None,
) -> TrainingResult:
    """Train ``experiment`` in ``folder``: ``metrics.jsonl`` and ``checkpoints/`` are written there.

    Ctrl-C, SIGTERM, SIGHUP and the death of the launcher save a checkpoint after the current step and return with
    status "interrupted"; a signal that this process ignores stays ignored. A tracker that asks for a stop
    (``TrackerRun.after_step``) ends the run in the same way. Every rank must call this; all ranks share a file system,
    and no other run may be using ``folder``. A branch begins with the checkpoint of its parent run, whose folder is
    next to ``folder``, unless it has its own checkpoint to resume from.

    Args:
        experiment: the experiment to train.
        folder: the run's folder; trackers receive the ``recipe.json`` in it, if there is one.
        resume: continue from the newest complete checkpoint, if there is one. Without it, a folder with checkpoints
            is refused.
        progress: show the progress (rank 0 only).
        keep_steps: steps whose checkpoints are kept in addition to the newest, because other runs begin with them.
        validate: measures the validation losses after every ``validate_every`` steps; None never validates. It must
            leave the module as it is.

    Raises:
        RunFolderError: there are checkpoints, and ``resume`` is not set.
        TrainingDiverged: a loss or the gradient is not finite.
        NothingToBeginWith: the experiment is a branch, and its parent run has no such checkpoint.
        CheckpointDamaged, CheckpointMismatch: the checkpoint to begin with cannot be used.
    """
    started = time.perf_counter()
    start(experiment.engine.num_threads)
    on_every_rank(lambda: make_folder(folder))
    with ExitStack() as on_error:
        engine = on_error.enter_context(TrainingEngine(experiment))
        earlier = begin(engine, folder, resume=resume)
        run = RunSteps(engine, folder, started - earlier, progress=progress, keep_steps=keep_steps, validate=validate)
        with _naming_what_is_safe(folder):
            status = run.take()
        on_error.pop_all()
    barrier()  # rank 0 has written its last line
    shares = [share for share in from_everyone(run.pace.data_share) if share is not None]
    lines = read_metrics(folder)
    missing = missing_lines(experiment, lines, engine.step_number)
    losses = mean_losses(lines)
    return TrainingResult(
        status=status,
        num_steps=engine.step_number,
        losses=losses,
        patches_per_second=run.pace.patches_per_second,
        seconds=run.seconds,
        engine=engine,
        parameters=ParameterCounts.of(engine.module),
        missing_metrics=missing,
        peak_memory=run.peak_memory,
        data_share=max(shares, default=None),
        num_unreadable=run.unreadable.num_failed,
    )


@contextmanager
def _naming_what_is_safe(folder: Path) -> Iterator[None]:
    """Add to the error of a refused write the checkpoint that can be resumed."""
    try:
        yield
    except CannotWrite as error:
        last = RunFolder(folder).newest_checkpoint()
        safe = (
            f"The last complete checkpoint is {last}; --resume continues from it" if last else "No checkpoint was saved"
        )
        raise error.saying(safe) from error
