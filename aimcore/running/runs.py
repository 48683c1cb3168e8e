"""Runs as their folders tell: what each is, how far it has come, and whether it still goes on.

A run's process is not asked, only its files are, so that runs of other machines on a shared file system are told too:

- ``finished``, ``interrupted``, ``failed``: the study's ``summary.json`` says so, and nothing was written in the run's
  folder since (a run that is resumed writes there); or its ``error.txt`` is the last thing that was written.
- ``running``: anything else, while something was written lately. Lately is five minutes, or 20 times the time between
  its last lines of metrics, if that is longer; and an hour before the first line and after the last step, when a run
  reads data, validates and probes without a word.
- ``stale``: anything else. Its process was most likely killed; ``--resume`` goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import attrs

from aimcore.errors import InvalidSummary, RunFolderError
from aimcore.report.summary import Summary, read_summary

State = Literal["running", "finished", "interrupted", "failed", "stale"]

PATIENCE_SECONDS = 300.0
PATIENCE_LINES = 20
SILENT_SECONDS = 3600.0

_WRITTEN = ("recipe.json", "metrics.jsonl", "validation.json", "error.txt", "checkpoints")
_TAIL_BYTES = 2**16
_LAST_LINES = 20
"""Lines that rates and times are averaged over."""


@attrs.frozen(kw_only=True)
class Run:
    """One run, at the moment it was looked at."""

    folder: str
    """Relative to where it was looked for."""
    experiment: str
    study: str | None = None
    state: State
    step: int
    """Optimiser steps done, as far as they were logged."""
    num_steps: int | None = None
    losses: Mapping[str, float] = attrs.field(factory=dict)
    """As last logged."""
    patches_per_second: float | None = None
    """Of the last lines."""
    seconds_left: float | None = None
    """Of training, at the pace of the last lines; None unless it is running."""
    age: float
    """Seconds since something was last written."""


class _Pace(NamedTuple):
    """What the last lines of metrics say of the time that steps take."""

    seconds_per_step: float
    seconds_per_line: float
    patches_per_second: float


def find_runs(root: Path, *, now: float | None = None) -> tuple[Run, ...]:
    """Every run in or below ``root``, by folder.

    Args:
        root: for example a study's folder, or the folder of many.
        now: seconds since 1970; by default the clock's.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not root.is_dir():
        raise RunFolderError(f"there is no folder {root}: runs are by default in 'runs', below where they were started")
    now = time.time() if now is None else now
    return tuple(_run(folder, root, now) for folder in sorted(_folders(root)))


def _folders(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        if "recipe.json" in files or "metrics.jsonl" in files:
            yield Path(folder)
            below.clear()  # a run holds no runs


def _run(folder: Path, root: Path, now: float) -> Run:
    experiment = _experiment(folder)
    lines = _last_lines(folder / "metrics.jsonl")
    last = lines[-1] if lines else {}
    step, num_steps = int(last.get("step", -1)) + 1, experiment.get("num_steps")
    summary, pace = _summary(folder.parent), _pace(lines)
    written = max((_time_of(folder / name) for name in _WRITTEN), default=0.0)
    state = _state(folder, summary, written, now - written < _patience(step, num_steps, pace))
    left = None if pace is None or num_steps is None else (num_steps - step) * pace.seconds_per_step
    return Run(
        folder=str(folder.relative_to(root)),
        experiment=str(experiment.get("name", folder.resolve().name)),
        study=None if summary is None else summary.study,
        state=state,
        step=step,
        num_steps=num_steps,
        losses=dict(last.get("losses", {})),
        patches_per_second=None if pace is None else pace.patches_per_second,
        seconds_left=left if state == "running" else None,
        age=max(0.0, now - written),
    )


def _state(folder: Path, summary: Summary | None, written: float, lately: bool) -> State:
    entry = None if summary is None else summary.of(folder.name)
    # What is finished stays so: it is never resumed.
    if entry is not None and (entry.status == "finished" or _time_of(folder.parent / "summary.json") >= written):
        return entry.status
    if written and _time_of(folder / "error.txt") == written:
        return "failed"
    return "running" if lately else "stale"


def _patience(step: int, num_steps: int | None, pace: _Pace | None) -> float:
    """Seconds of silence that say nothing."""
    if pace is None or step == num_steps:
        return SILENT_SECONDS
    return max(PATIENCE_SECONDS, PATIENCE_LINES * pace.seconds_per_line)


def _pace(lines: Sequence[Mapping[str, Any]]) -> _Pace | None:
    seconds = sum(line["seconds"] for line in lines)
    if not lines or not seconds:
        return None
    patches = sum(line["patches_per_second"] * line["seconds"] for line in lines)
    per_step = seconds / len(lines)
    gaps = (lines[-1]["step"] - lines[0]["step"]) / max(1, len(lines) - 1)
    return _Pace(per_step, per_step * max(1, gaps), patches / seconds)


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of metrics, without reading those before; none where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            content = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    whole = [line for line in content.splitlines(keepends=True) if line.endswith("\n")]
    parsed = (_parsed(line) for line in whole[-_LAST_LINES - 1 :])
    return [line for line in parsed if {"step", "seconds", "patches_per_second"} <= line.keys()][-_LAST_LINES:]


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:  # the first line of the tail is mostly cut
        return {}
    return value if isinstance(value, dict) else {}


def _experiment(folder: Path) -> Mapping[str, Any]:
    """The experiment of a run's recipe; empty where it cannot be read."""
    try:
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    experiment = recipe.get("experiment") if isinstance(recipe, dict) else None
    return experiment if isinstance(experiment, dict) else {}


def _summary(folder: Path) -> Summary | None:
    """The summary of a run's study; None where it has none that can be read."""
    path = folder / "summary.json"
    try:
        return read_summary(path) if path.is_file() else None
    except InvalidSummary:
        return None


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
