"""Recording of a run's metrics, in ``metrics.jsonl`` and by trackers. Only rank 0 records."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loguru import logger

from aimcore.contracts.trackers import TrackerRun
from aimcore.engine.metrics_file import MetricsFile, flat
from aimcore.engine.shared_errors import Attempt
from aimcore.engine.training_engine import StepResult
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RunFolder
from aimcore.recipe import read


class Recorder:
    """A context that records steps; at its end, trackers receive the status of the run."""

    def __init__(self, experiment: Experiment, folder: Path, first_step: int, *, writes: bool) -> None:
        self.experiment = experiment
        self.folder = folder
        self.first_step = first_step
        self.writes = writes
        self.status = "finished"
        """How the run ended, unless an error ends it."""
        self._file: MetricsFile | None = None
        self._trackers: list[TrackerRun] = []
        self._line: dict[str, Any] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        if self.writes:
            with ExitStack() as opened:
                self._file = opened.enter_context(MetricsFile(self.folder, self.first_step))
                recipe = _recipe(self.folder)
                for tracker in self.experiment.trackers:
                    run = tracker.open(str(self.folder), recipe, self.first_step)
                    opened.callback(self._close, run)
                    self._trackers.append(run)
                self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        attempt = Attempt()
        with attempt:
            self._closing.close()
        if attempt.error is None:
            return
        if error is None:
            raise attempt.error
        # On a full disk, closing fails like writing; the first error is more informative.
        logger.error("{}: closing what is recorded failed too: {}", self.experiment.name, attempt.error)

    def _close(self, tracker: TrackerRun) -> None:
        tracker.close(self.status)

    @property
    def has_callbacks(self) -> bool:
        """Whether a tracker has a callback for every step, which may stop the run; False on ranks other than 0."""
        return any(type(run).after_step is not TrackerRun.after_step for run in self._trackers)

    def record(
        self, step: int, result: StepResult, validation: Mapping[str, float], *, data_seconds: float, seconds: float
    ) -> None:
        """Record ``step`` if it is a multiple of ``log_every``, the last step, or has validation losses."""
        experiment = self.experiment
        self._line = {}
        if self._file is None:
            return
        self._line = self._line_of(step, result, data_seconds, seconds)
        if validation:
            self._line["validation_losses"] = dict(validation)
        elif step % experiment.log_every and step != experiment.num_steps - 1:
            return
        self._file.write(self._line)
        for tracker in self._trackers:
            tracker.log(step, flat(self._line))

    def stopping(self) -> str:
        """Call the trackers' callbacks for the last recorded step; return the names of those that stop, or ``""``."""
        step = self._line["step"]
        asked = [run.after_step(step, flat(self._line)) for run in self._trackers]
        trackers = zip(self.experiment.trackers, asked, strict=True)
        return ", ".join(tracker.name for tracker, asks in trackers if asks)

    def _line_of(self, step: int, result: StepResult, data_seconds: float, seconds: float) -> dict[str, Any]:
        line: dict[str, Any] = {
            "step": step,
            "losses": dict(result.losses),
            "lr": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            "patches_per_second": result.num_patches / seconds,
            "data_seconds": data_seconds,
            "seconds": seconds,
            "peak_memory": result.peak_memory,
        }
        if self.experiment.data.native is not None:
            line |= {
                "num_images": result.num_images,
                "area": result.num_patches // result.num_images,
                "num_patches": result.num_patches,
                "padding_share": result.padding_share,
            }
        return line

    def sync(self) -> None:
        """Wait until everything that was recorded is safe against a power cut."""
        if self._file is not None:
            self._file.sync()
        for tracker in self._trackers:
            tracker.sync()


def _recipe(folder: Path) -> dict[str, object]:
    """Return the recipe of a run as plain values. A run that ``train`` started from Python has none: it is empty."""
    path = RunFolder(folder).recipe
    return read(path) if path.exists() else {}
