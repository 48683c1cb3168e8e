"""The state of runs, from the files in their folders: the progress of each, and whether it is still running.

Files describe runs of other machines on a shared file system too:

- ``finished``, ``interrupted``, ``failed``: the status in the study's ``summary.json``, if nothing was written in the
  run's folder since (a run that is resumed writes there); or ``failed`` if ``error.txt`` is the newest file.
- ``running``: otherwise, if something was written recently: within five minutes, or 20 times the time between the last
  lines of metrics if that is longer; and within an hour before the first line and after the last step, while a run
  reads data, validates and probes without output.
- ``stale``: otherwise; also immediately if the lock of the run or its study belongs to a process of this machine that
  has ended. The process was most likely killed; ``--resume`` continues from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

import attrs

from aimcore.contracts.errors import InvalidSummary, RunFolderError
from aimcore.contracts.messages import shortened
from aimcore.io.metrics_lines import last_lines
from aimcore.io.run_folder import METRICS_FILE, RECIPE_FILE, RunFolder, StudyFolder
from aimcore.running.lock_holder import is_abandoned
from aimcore.running.summary import Summary, read_summary

State = Literal["running", "finished", "interrupted", "failed", "stale"]

PATIENCE_SECONDS = 300.0
PATIENCE_LINES = 20
SILENT_SECONDS = 3600.0

_RECIPE_BYTES = 2**22
_MOST = 10**15
"""Largest step, time or loss that is read from a file; larger numbers are damage, and do not fit into the table."""
_LAST_LINES = 20
"""Lines that rates and times are averaged over."""


@attrs.frozen(kw_only=True)
class Run:
    """The state of one run."""

    folder: str
    """The run's folder, relative to the folder that was searched."""
    experiment: str
    study: str | None = None
    state: State
    step: int
    """Number of logged optimiser steps."""
    num_steps: int | None = None
    losses: Mapping[str, float] = attrs.field(factory=dict)
    """The last logged losses."""
    patches_per_second: float | None = None
    """Mean rate over the last lines of metrics."""
    seconds_left: float | None = None
    """Remaining seconds of training, at the rate of the last lines; None unless the run is running."""
    age: float
    """Seconds since something was last written."""


class _Line(NamedTuple):
    """A line of metrics."""

    step: int
    seconds: float
    patches_per_second: float
    losses: Mapping[str, float]


class _Pace(NamedTuple):
    """The time per step, from the last lines of metrics."""

    seconds_per_step: float
    seconds_per_line: float
    patches_per_second: float


def find_runs(root: Path, *, now: float | None = None) -> tuple[Run, ...]:
    """Return every run in or below ``root``, sorted by folder.

    Args:
        root: for example a study's folder, or a folder of several studies.
        now: the current time in seconds since 1970; by default that of the system clock.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not os.path.isdir(root):
        raise RunFolderError(f"there is no folder {root}: runs are by default in 'runs', below where they were started")
    now = time.time() if now is None else now
    return tuple(_run(folder, root, now) for folder in sorted(_folders(root)))


def _folders(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        if RECIPE_FILE in files or METRICS_FILE in files:
            yield Path(folder)
            below.clear()  # a run holds no runs


def _run(folder: Path, root: Path, now: float) -> Run:
    name, num_steps = _recorded(folder)
    lines = _last_lines(folder)
    step = lines[-1].step + 1 if lines else 0
    summary, pace = _summary(folder.parent), _pace(lines)
    written = max(map(_time_of, RunFolder(folder).written_in_turn))
    state = _state(folder, summary, written, now - written < _patience(step, num_steps, pace))
    left = None if pace is None or num_steps is None else max(0, num_steps - step) * pace.seconds_per_step
    return Run(
        folder=str(folder.relative_to(root)),
        experiment=name,
        study=None if summary is None else summary.study,
        state=state,
        step=step,
        num_steps=num_steps,
        losses=lines[-1].losses if lines else {},
        patches_per_second=None if pace is None else pace.patches_per_second,
        seconds_left=left if state == "running" else None,
        age=max(0.0, now - written),
    )


def _state(folder: Path, summary: Summary | None, written: float, lately: bool) -> State:
    entry = None if summary is None else summary.of(folder.name)
    # A finished run stays finished: it is never resumed.
    if entry is not None and (entry.status == "finished" or _time_of(StudyFolder(folder.parent).summary) >= written):
        return entry.status
    if written and _time_of(RunFolder(folder).error) == written:
        return "failed"
    return "running" if lately and not any(map(is_abandoned, (folder, folder.parent))) else "stale"


def _patience(step: int, num_steps: int | None, pace: _Pace | None) -> float:
    """Return the seconds without output after which a run counts as stale."""
    if pace is None or step == num_steps:
        return SILENT_SECONDS
    return max(PATIENCE_SECONDS, PATIENCE_LINES * pace.seconds_per_line)


def _pace(lines: Sequence[_Line]) -> _Pace | None:
    seconds = sum(line.seconds for line in lines)
    if not lines or not seconds:
        return None
    patches = sum(line.patches_per_second * line.seconds for line in lines)
    per_step = seconds / len(lines)
    gaps = (lines[-1].step - lines[0].step) / max(1, len(lines) - 1)
    return _Pace(per_step, per_step * max(1, gaps), patches / seconds)


def _last_lines(folder: Path) -> list[_Line]:
    """Return the last whole lines of metrics; none if there is no file."""
    parsed = (_line(entry) for entry in last_lines(folder, _LAST_LINES + 1))
    return [line for line in parsed if line is not None][-_LAST_LINES:]


def _line(entry: Mapping[str, Any]) -> _Line | None:
    """Parse a line of metrics; None if it is damaged, as the first line of a tail usually is."""
    step, seconds, rate, losses = (entry.get(key) for key in ("step", "seconds", "patches_per_second", "losses"))
    if not (_is_count(step) and _is_amount(seconds) and _is_amount(rate)):
        return None
    numbers = losses.items() if isinstance(losses, Mapping) else ()
    return _Line(step, seconds, rate, {shortened(name): value for name, value in numbers if _is_number(value)})


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) <= _MOST  # type: ignore[arg-type]


def _is_amount(value: object) -> TypeGuard[float]:
    return _is_number(value) and value >= 0


def _recorded(folder: Path) -> tuple[str, int | None]:
    """Return name and number of steps from a run's recipe; without a readable recipe, the folder's name and None."""
    experiment = _json(_content(RunFolder(folder).recipe)).get("experiment")
    values = experiment if isinstance(experiment, Mapping) else {}
    name, num_steps = values.get("name"), values.get("num_steps")
    return (
        shortened(name) if isinstance(name, str) else folder.resolve().name,
        num_steps if _is_count(num_steps) else None,
    )


def _content(path: Path) -> str:
    """Read a file, up to the largest size of a recipe; empty if it cannot be read."""
    try:
        # Opening a pipe would wait for its writer.
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_RECIPE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _json(text: str) -> Mapping[str, Any]:
    """Parse a text as a JSON object; empty if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _summary(folder: Path) -> Summary | None:
    """Return the summary of a run's study; None without a readable one."""
    path = StudyFolder(folder).summary
    try:
        return read_summary(path) if path.is_file() else None
    except InvalidSummary:
        return None


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
