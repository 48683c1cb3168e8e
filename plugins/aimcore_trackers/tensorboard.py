"""Metrics as TensorBoard events. It is a plugin of its own, because it requires the extra ``tensorboard``."""

from __future__ import annotations

import json
import posixpath
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aimcore import Problem, Tracker, TrackerRun, at_least, component, hookimpl
from aimcore.io.atomic_files import CannotWrite, writing
from aimcore.io.locations import location_problems

_QUEUE = 1000
"""Largest number of points that wait to be written: more than a step has."""


@hookimpl
def trackers() -> list[type[Tracker]]:
    """Supply the tracker of this module."""
    return [TensorBoard]


@component("tensorboard")
class TensorBoard(Tracker):
    """Writes a run's metrics as TensorBoard events; ``tensorboard --logdir runs`` shows them, and all others there.

    When a run is resumed, TensorBoard hides everything that was logged from the resumed step on. The events are
    written by tensorboardX, which is small; to view them, install TensorBoard itself, here or on another machine.
    """

    log_dir: str | None = None
    """Folder of the events, or an ``s3://`` or ``gs://`` URL; ``{run}`` becomes the run's name. By default
    ``tensorboard`` in the run's folder."""
    flush_seconds: int = 10
    """Events are on the disk after at most this time."""

    def problems(self) -> Iterable[Problem]:
        """Yield an interval of more than a day, and a refused protocol."""
        yield from at_least("flush_seconds", self.flush_seconds, 1, 86400)
        if self.log_dir is not None:
            yield from location_problems("log_dir", self.log_dir)

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TensorBoardRun:
        """Start a file of events next to the existing ones, and hide their events from ``resume_step`` on."""
        run = posixpath.basename(folder.replace("\\", "/").rstrip("/"))
        log_dir = str(Path(folder) / "tensorboard") if self.log_dir is None else self.log_dir.replace("{run}", run)
        return TensorBoardRun(log_dir, recipe, resume_step, self.flush_seconds)


class TensorBoardRun(TrackerRun):
    """An open file of events."""

    def __init__(self, log_dir: str, recipe: Mapping[str, Any], resume_step: int, flush_seconds: int) -> None:
        from tensorboardX import SummaryWriter

        # Purge also at step 0: a run that starts again hides everything that an earlier one left. The name of a file is
        # its second of creation, and another file of that name would replace the first.
        suffix = f".{time.time_ns()}"
        self._log_dir = log_dir
        with writing(log_dir):
            self._writer = SummaryWriter(
                log_dir,
                purge_step=resume_step,
                max_queue=_QUEUE,
                flush_secs=flush_seconds,
                filename_suffix=suffix,
            )
        if recipe:
            self._writer.add_text("recipe", f"```json\n{json.dumps(recipe, indent=2)}\n```", resume_step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve of every metric.

        Raises:
            CannotWrite: earlier points could not be written.
        """
        self._require_writer()
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def sync(self) -> None:
        """Pass all events to the system.

        Raises:
            CannotWrite: some could not be written.
        """
        self._require_writer()
        with writing(self._log_dir):
            self._writer.flush()

    def close(self, status: str) -> None:
        """Write the remaining events. TensorBoard does not record how the run ended.

        Raises:
            CannotWrite: some points could not be written.
        """
        self._require_writer()
        with writing(self._log_dir):
            self._writer.close()

    def _require_writer(self) -> None:
        """Check that tensorboardX still writes: an error ends its thread, and the queue to a dead thread blocks."""
        events = self._writer.file_writer.event_writer
        worker = getattr(events, "_worker", None)
        if worker is not None and not worker.is_alive():
            events._closed = True  # or it tries once more when Python ends
            raise CannotWrite.because(self._log_dir, RuntimeError("tensorboardX stopped after an error"))
