"""The training loop: steps, metrics and checkpoints. A run that is interrupted and resumed gives the same results."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import attrs
from loguru import logger

from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.data import train_steps
from aimcore.data.unreadable import Unreadable
from aimcore.engine import checkpoints
from aimcore.engine.checkpoint_copies import CheckpointCopies
from aimcore.engine.distributed import any_rank, barrier, on_every_rank, on_first_rank, start
from aimcore.engine.engine_errors import TrainingDiverged
from aimcore.engine.interruption import Interruption
from aimcore.engine.metrics_file import in_ranges, mean_losses, missing_steps
from aimcore.engine.parameter_counts import ParameterCounts
from aimcore.engine.progress import Progress, progress_for
from aimcore.engine.recording import Recorder
from aimcore.engine.saved_checkpoints import require_new
from aimcore.engine.training_engine import StepResult, TrainingEngine
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import CannotWrite, make_folder
from aimcore.io.metrics_lines import Line, read_metrics
from aimcore.io.run_folder import RunFolder

Validator = Callable[[ObjectiveModule], Mapping[str, float]]
"""Returns the validation losses of a module, by name; all ranks call it, and get the same."""


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
        earlier = _begin(engine, folder, resume=resume)
        run = _Run(engine, folder, started - earlier, progress=progress, keep_steps=keep_steps, validate=validate)
        with _naming_what_is_safe(folder):
            status = run.steps()
        on_error.pop_all()
    barrier()  # rank 0 has written its last line
    lines = read_metrics(folder)
    missing = _missing(experiment, lines, engine.step_number)
    losses = mean_losses(lines)
    return TrainingResult(
        status=status,
        num_steps=engine.step_number,
        losses=losses,
        patches_per_second=run.patches_per_second,
        seconds=run.seconds,
        engine=engine,
        parameters=ParameterCounts.of(engine.module),
        missing_metrics=missing,
        peak_memory=run.peak_memory,
        num_unreadable=run.unreadable.num_failed,
    )


def _begin(engine: TrainingEngine, folder: Path, *, resume: bool) -> float:
    """Load the checkpoint that the run continues, if there is one; return the seconds of training before it."""
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
    copies = _copies_of(experiment)
    if copies is None or RunFolder(folder).newest_checkpoint() is not None:
        return
    restored = copies.restore(RunFolder(folder))
    if restored is not None:
        logger.info("{}: copied {} back from {}", experiment.name, restored.name, copies.url)


def _copies_of(experiment: Experiment) -> CheckpointCopies | None:
    url, keep = experiment.engine.checkpoint_copies, experiment.engine.keep_checkpoints
    return None if url is None else CheckpointCopies(url, experiment.name, keep)


def _warn_of_missing(experiment: Experiment, folder: Path, num_done: int) -> None:
    missing = _missing(experiment, read_metrics(folder), num_done)
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


def _missing(experiment: Experiment, lines: Sequence[Line], num_done: int) -> str:
    return in_ranges(missing_steps(lines, experiment, num_done), experiment.log_every)


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


class _Rate:
    """Patches per second, without the first step, which includes allocations and the start of the data loader."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._patches = 0
        self._seconds = 0.0

    def add(self, num_patches: int, seconds: float) -> None:
        """Count a step."""
        if self._first is None:
            self._first = (num_patches, seconds)
        else:
            self._patches += num_patches
            self._seconds += seconds

    @property
    def value(self) -> float | None:
        """The rate, or that of the first step if only one was made, or None before the first step."""
        if self._seconds:
            return self._patches / self._seconds
        return self._first[0] / self._first[1] if self._first else None


class _Run:
    """The steps of one process, from the engine's step to the last one."""

    def __init__(
        self,
        engine: TrainingEngine,
        folder: Path,
        started: float,
        *,
        progress: bool,
        keep_steps: Collection[int],
        validate: Validator | None,
    ) -> None:
        self.engine = engine
        self.validate = validate
        self.keep_steps = keep_steps
        self.experiment = engine.experiment
        self.folder = folder
        self.started = started
        self.shows_progress = progress and engine.world.is_first
        self._rate = _Rate()
        self.peak_memory: int | None = None
        self._copies: CheckpointCopies | None = None
        self.unreadable = Unreadable(self.experiment.data)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self.started

    @property
    def patches_per_second(self) -> float | None:
        """Rate of the steps of this process; None if there were none."""
        return self._rate.value

    def steps(self) -> Literal["finished", "interrupted"]:
        """Train until the end or an interruption, and save."""
        first = self.engine.step_number
        interrupted = False
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            recorder = Recorder(self.experiment, self.folder, first, writes=self.engine.world.is_first)
            on_every_rank(lambda: stack.enter_context(recorder))
            if self.engine.world.is_first and (copies := _copies_of(self.experiment)) is not None:
                self._copies = stack.enter_context(copies)
            shown = stack.enter_context(self._progress(first))
            batches = stack.enter_context(closing(on_every_rank(lambda: self._batches(first))))
            has_callbacks = any_rank(recorder.has_callbacks)
            while self.engine.step_number < self.experiment.num_steps and not interrupted:
                interrupted = self._step(batches, interruption, recorder, shown).interrupted
                if interrupted:
                    logger.warning("{}: interrupted, saving; Ctrl-C again aborts at once", self.experiment.name)
                if has_callbacks:
                    interrupted = self._is_stopped(recorder) or interrupted
                self._save(recorder, is_last=interrupted)
            # A signal may have come while the last checkpoint was written; it ends the study too.
            interrupted = interrupted or any_rank(interruption.requested)
            recorder.status = "interrupted" if interrupted else "finished"
        return "interrupted" if interrupted else "finished"

    def _step(
        self, batches: Iterator[list[Batch]], interruption: Interruption, recorder: Recorder, shown: Progress
    ) -> StepResult:
        begun = time.perf_counter()
        micro_batches = next(batches)
        waited = time.perf_counter() - begun
        step = self.engine.step_number
        try:
            result = self.engine.step(micro_batches, lambda: interruption.requested)
        except TrainingDiverged as error:
            last = RunFolder(self.folder).newest_checkpoint()
            saved = str(last) if last else None
            raise TrainingDiverged(error.step, error.losses, error.gradient_norm, saved) from None
        seconds = time.perf_counter() - begun
        self._rate.add(result.num_patches, seconds)
        self.peak_memory = result.peak_memory
        shown.update(result, step + 1)
        recorder.record(step, result, self._validation(step + 1), data_seconds=waited, seconds=seconds)
        return result

    def _validation(self, num_done: int) -> Mapping[str, float]:
        """Return the validation losses after ``num_done`` steps, if it is time for them; after the last step it is not.

        The next step seeds torch's generators anew, so that training does not depend on it.
        """
        every = self.experiment.validate_every
        if self.validate is None or every is None or num_done % every or num_done == self.experiment.num_steps:
            return {}
        losses = self.validate(self.engine.module)
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        logger.info("{}: validation after step {}: {}", self.experiment.name, num_done, values)
        return losses

    def _is_stopped(self, recorder: Recorder) -> bool:
        """Whether a tracker stops the run after this step; the same on all ranks."""
        asking = on_first_rank(recorder.stopping)
        step = self.engine.step_number
        if not asking or step == self.experiment.num_steps:
            return False
        logger.warning("{}: stopped by {} after step {}, saving", self.experiment.name, asking, step)
        return True

    def _save(self, recorder: Recorder, *, is_last: bool) -> None:
        every, done = self.experiment.checkpoint_every, self.engine.step_number
        is_final = done == self.experiment.num_steps
        if is_last or is_final or (every and done % every == 0):
            on_first_rank(recorder.sync)  # no checkpoint whose metrics a power cut could still take
            copied = () if self._copies is None else self._copies.held_steps
            saved = checkpoints.save(
                self.engine,
                self.folder,
                seconds=self.seconds,
                final=is_final,
                keep=self.experiment.engine.keep_checkpoints,
                keep_steps=[*self.keep_steps, *copied],
            )
            if self._copies is not None:
                self._copies.add(saved)

    def _progress(self, first: int) -> Progress:
        experiment = self.experiment
        return progress_for(
            experiment.name,
            shown=self.shows_progress,
            first_step=first,
            num_steps=experiment.num_steps,
        )

    def _batches(self, first: int) -> Generator[list[Batch]]:
        experiment, world = self.experiment, self.engine.world
        return train_steps(
            experiment.data,
            experiment.data.train.open(),
            patch_size=experiment.trunk.patch_size,
            views=experiment.objective.views,
            extras=experiment.objective.extras,
            text=experiment.objective.text,
            seed=experiment.seed,
            first_step=first,
            num_steps=experiment.num_steps - first,
            rank=world.rank,
            world_size=world.size,
            accumulation_steps=experiment.engine.accumulation_steps,
            unreadable=self.unreadable,
        )
