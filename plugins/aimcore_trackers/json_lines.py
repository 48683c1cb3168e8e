"""Metrics as lines of JSON, at any location that fsspec can write."""

from __future__ import annotations

import json
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Self

from aimcore import AimcoreError, Problem, Tracker, TrackerRun, component
from aimcore.contracts.messages import shown
from aimcore.io.atomic_files import AppendedFile, make_folder
from aimcore.io.locations import file_system, local_path, location_problems

_SECONDS_BETWEEN_UPLOADS = 60.0
_LONGEST_LINE = 2**20
_SHOWN = 60
_NUMBERS = (int, float, NoneType)
_HINT = "Give the tracker a url of its own, or move that file away"


class NotATrackerFile(AimcoreError):
    """The file at a tracker's URL was not written by the tracker."""


@component("jsonl")
class JSONLines(Tracker):
    """Mirrors a run's metrics to one file: a line of JSON per logged step, ``{"step": ..., "loss/...": ..., ...}``.

    A local file grows line by line. Object stores cannot append: there the whole file is written again once a minute,
    and at the end. When a run is resumed, lines from the resumed step on are dropped. A new run replaces the file
    of an earlier one; a file that this tracker did not write is never replaced.
    """

    url: str
    """The destination, for example ``"s3://bucket/{run}.jsonl"``; ``{run}`` becomes the run's name."""

    def problems(self) -> Iterable[Problem]:
        """Yield a missing URL, and a refused protocol."""
        if not self.url:
            yield Problem("url", "must name a file, e.g. 'metrics/{run}.jsonl'; got ''")
        yield from location_problems("url", self.url)

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> JSONLinesRun:
        """Start a file, or continue the existing one.

        Raises:
            NotATrackerFile: the existing file is not this tracker's.
            CannotWrite: the system refused to write there.
        """
        return JSONLinesRun(self.destination(folder), resume_step)

    def destination(self, folder: str) -> str:
        """Return the file of the run in ``folder``.

        Raises:
            LocationError: a package for its protocol is missing, or its host cannot be reached.
        """
        url = self.url.replace("{run}", posixpath.basename(folder.replace("\\", "/").rstrip("/")))
        file_system(url)
        return url

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A file in memory."""
        return (cls(url="memory://{run}.jsonl"),)


class JSONLinesRun(TrackerRun):
    """An open file of :class:`JSONLines`."""

    def __init__(self, url: str, resume_step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._files, self._path = file_system(url)
        self._lines = [line for step, line in self._earlier() if step < resume_step]
        self._clock = clock
        self._local: AppendedFile | None = None
        self._written = clock()
        path = local_path(url)
        if path is None:
            self._upload()
        else:
            make_folder(path.parent)
            self._local = AppendedFile(path, "".join(self._lines))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line."""
        line = json.dumps({"step": step, **metrics}) + "\n"
        if self._local is not None:
            self._local.append(line)
            return
        self._lines.append(line)
        if self._clock() - self._written >= _SECONDS_BETWEEN_UPLOADS:
            self._upload()

    def sync(self) -> None:
        """Wait until all lines are on the disk, or upload them."""
        if self._local is None:
            self._upload()
            return
        self._local.sync()

    def close(self, status: str) -> None:
        """Write the remaining lines."""
        if self._local is not None:
            self._local.close()
        else:
            self._upload()

    def _earlier(self) -> Iterator[tuple[int, str]]:
        """Yield each whole line of the existing file with its step.

        Raises:
            NotATrackerFile: the file has other content.
        """
        if not self._files.exists(self._path):
            return
        if not self._files.isfile(self._path):
            raise NotATrackerFile(f"{self._url} is not a file: {_HINT}")
        with self._files.open(self._path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                step = _step_of(line)
                if step is not None:
                    yield step, line.decode()
                elif line.endswith(b"\n") or not _is_cut(line):
                    raise NotATrackerFile(
                        f"{self._url} is not replaced, because it is not a file of this tracker: line {number} is "
                        f"{shown(line[:_SHOWN])}. {_HINT}"
                    )

    def _upload(self) -> None:
        self._files.makedirs(posixpath.dirname(self._path), exist_ok=True)
        self._files.pipe_file(self._path, "".join(self._lines).encode())
        self._written = self._clock()


def _step_of(line: bytes) -> int | None:
    """Return the step of a line that this tracker wrote; None if it did not, or only in part."""
    try:
        metrics = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    # Numbers only: the lines of a run's own metrics.jsonl contain mappings, and are not the tracker's.
    if not isinstance(metrics, dict) or not all(type(value) in _NUMBERS for value in metrics.values()):
        return None
    step = metrics.get("step")
    return step if type(step) is int else None


def _is_cut(line: bytes) -> bool:
    """Return whether a crash could have left this part of a line."""
    begin = b'{"step": '
    return len(line) < _LONGEST_LINE and (line.startswith(begin) or begin.startswith(line))
