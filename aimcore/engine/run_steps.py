"""The steps of a run: data, updates, metrics, validation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

from loguru import logger

from aimcore.contracts.batches import Batch
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.data import train_steps
from aimcore.data.unreadable import Unreadable
from aimcore.engine import checkpoints
from aimcore.engine.checkpoint_copies import CheckpointCopies, copies_of
from aimcore.engine.distributed import any_rank, on_every_rank, on_first_rank
from aimcore.engine.engine_errors import TrainingDiverged
from aimcore.engine.interruption import Interruption
from aimcore.engine.pace import Pace
from aimcore.engine.progress import Progress, progress_for
from aimcore.engine.recording import Recorder
from aimcore.engine.training_engine import StepResult, TrainingEngine
from aimcore.io.run_folder import RunFolder

Validator = Callable[[ObjectiveModule], Mapping[str, float]]
"""Returns the validation losses of a module, by name; all ranks call it, and get the same."""


class RunSteps:
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
        """Start before the first step.

        Args:
            engine: trains; its step number is where the steps start.
            folder: the folder of the run.
            started: when training began, by ``time.perf_counter``; earlier by the time before a resumption.
            progress: show the progress (rank 0 only).
            keep_steps: steps whose checkpoints are kept in addition to the newest.
            validate: measures the validation losses.
        """
        self.engine = engine
        self.validate = validate
        self.keep_steps = keep_steps
        self.experiment = engine.experiment
        self.folder = folder
        self.started = started
        self.shows_progress = progress and engine.world.is_first
        self.pace = Pace(self.experiment.name, self.experiment.data.num_workers)
        self.peak_memory: int | None = None
        self._copies: CheckpointCopies | None = None
        self.unreadable = Unreadable(self.experiment.data)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self.started

    def take(self) -> Literal["finished", "interrupted"]:
        """Train until the end or an interruption, and save."""
        first = self.engine.step_number
        interrupted = False
        with ExitStack() as stack:
            interruption = stack.enter_context(Interruption())
            recorder = Recorder(self.experiment, self.folder, first, writes=self.engine.world.is_first)
            on_every_rank(lambda: stack.enter_context(recorder))
            if self.engine.world.is_first and (copies := copies_of(self.experiment)) is not None:
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
        self.pace.add(result.num_patches, seconds, waited)
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
