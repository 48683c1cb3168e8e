"""Metrics as lines of JSON, anywhere fsspec can write."""

from __future__ import annotations

import json
import posixpath
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from aimcore import Problem, Tracker, TrackerRun, component
from aimcore.locations import file_system, local_path, location_problems

_SECONDS_BETWEEN_UPLOADS = 60.0


@component("jsonl")
class JSONLines(Tracker):
    """Mirrors a run's metrics to one file: a line of JSON per logged step, ``{"step": ..., "loss/...": ..., ...}``.

    A local file grows line by line. Object stores cannot append: there the whole file is written again once a minute,
    and at the end. When a run is resumed, lines at or beyond the resumed step are dropped.
    """

    url: str
    """Where to, e.g. ``"metrics/{run}.jsonl"`` or ``"s3://bucket/{run}.jsonl"``; ``{run}`` becomes the run's name."""

    def problems(self) -> Iterable[Problem]:
        """A place is needed, whose protocol is allowed."""
        if not self.url:
            yield Problem("url", "must name a file, e.g. 'metrics/{run}.jsonl'; got ''")
        yield from location_problems("url", self.url)

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> JSONLinesRun:
        """Begin a file, or go on with the one that is there."""
        run = posixpath.basename(folder.replace("\\", "/").rstrip("/"))
        return JSONLinesRun(self.url.replace("{run}", run), resume_step)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A file in memory."""
        return (cls(url="memory://{run}.jsonl"),)


class JSONLinesRun(TrackerRun):
    """An open file of :class:`JSONLines`."""

    def __init__(self, url: str, resume_step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._path = file_system(url)
        self._lines = self._earlier(resume_step)
        self._clock = clock
        self._local = None
        self._written = clock()
        self._write_all()
        if local_path(url) is not None:
            self._local = self._files.open(self._path, "ab")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line."""
        line = json.dumps({"step": step, **metrics}) + "\n"
        if self._local is not None:
            self._local.write(line.encode())
            self._local.flush()
            return
        self._lines.append(line)
        if self._clock() - self._written >= _SECONDS_BETWEEN_UPLOADS:
            self._write_all()

    def close(self, status: str) -> None:
        """Write what is left."""
        if self._local is not None:
            self._local.close()
        else:
            self._write_all()

    def _earlier(self, resume_step: int) -> list[str]:
        if resume_step == 0 or not self._files.exists(self._path):
            return []
        lines = self._files.cat_file(self._path).decode().splitlines(keepends=True)
        # A line that a crash cut short has no end.
        return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < resume_step]

    def _write_all(self) -> None:
        self._files.makedirs(posixpath.dirname(self._path), exist_ok=True)
        self._files.pipe_file(self._path, "".join(self._lines).encode())
        self._written = self._clock()
