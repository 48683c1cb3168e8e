"""What a study's folder holds for its report. What is missing or damaged is told where it would have been shown."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.io.metrics_lines import Line, metrics_in
from aimcore.io.run_folder import ERROR_FILE, METRICS_FILE, VALIDATION_FILE
from aimcore.running.summary import ExperimentSummary

_LONGEST_ERROR = 2**18
"""Bytes of a traceback that are shown, from its end."""

Floats = npt.NDArray[np.float64]


@attrs.frozen
class Absent:
    """Something that cannot be shown, and why."""

    reason: str


class Curve(NamedTuple):
    """A loss by optimiser step (0 for the first)."""

    steps: Floats
    values: Floats


@attrs.frozen(eq=False)
class RunFiles:
    """One experiment of a study's folder."""

    entry: ExperimentSummary
    folder: Path | Absent
    """Where its files are; absent if the summary points outside the study's folder."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.entry.name

    def recipe(self) -> Mapping[str, Any] | Absent:
        """``recipe.json`` as plain values."""
        return self._json(Path(self.entry.recipe).name)

    def metrics(self) -> Sequence[Line] | Absent:
        """What was logged of each step; lines that cannot be read are left out."""
        path = self._path(METRICS_FILE)
        if isinstance(path, Absent):
            return path
        try:
            return metrics_in(path.read_bytes()).lines
        except OSError as error:
            return Absent(f"{self._name_of(path)} cannot be read: {error.strerror}")

    def curves(self) -> Mapping[str, Curve] | Absent:
        """Each loss as it was logged."""
        entries = self.metrics()
        if isinstance(entries, Absent):
            return entries
        found: dict[str, list[tuple[float, float]]] = {}
        for entry in entries:
            for name, value in entry["losses"].items():
                found.setdefault(name, []).append((float(entry["step"]), float(value)))
        if not found:
            return Absent(self.told(METRICS_FILE, "holds no losses"))
        return {name: Curve(*np.array(points, dtype=np.float64).T) for name, points in found.items()}

    def chunks(self) -> Mapping[str, Floats] | Absent:
        """Validation loss per equal part of the reading order, by loss; NaN where nothing is predicted."""
        record = self._json(VALIDATION_FILE)
        if isinstance(record, Absent):
            return record
        losses = record.get("losses")
        entries = losses.items() if isinstance(losses, Mapping) else ()
        found = {name: _numbers(entry.get("by_chunk")) for name, entry in entries if isinstance(entry, Mapping)}
        present = {name: values for name, values in found.items() if values is not None}
        return present or Absent(f"{self.name}/{VALIDATION_FILE} has no loss by parts of the sequence")

    def error(self) -> str | None:
        """The traceback of a run that failed."""
        path = self._path(ERROR_FILE)
        if isinstance(path, Absent):
            return None
        try:
            return _end_of(path)
        except OSError as error:
            return f"{self._name_of(path)} cannot be read: {error.strerror}"

    def told(self, name: str, problem: str) -> str:
        """A sentence about one of its files."""
        return problem if isinstance(self.folder, Absent) else f"{self.folder.name}/{name} {problem}"

    def _json(self, name: str) -> Mapping[str, Any] | Absent:
        path = self._path(name)
        if isinstance(path, Absent):
            return path
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            return Absent(f"{self._name_of(path)} is damaged: {error}")
        except OSError as error:
            return Absent(f"{self._name_of(path)} cannot be read: {error.strerror}")
        return values if isinstance(values, Mapping) else Absent(f"{self._name_of(path)} holds no object")

    def _path(self, name: str) -> Path | Absent:
        if isinstance(self.folder, Absent):
            return self.folder
        path = self.folder / name
        if not path.is_file():
            return Absent(f"{self._name_of(path)} is not there")
        # A page is passed on: it must not show files of this machine that a stranger's folder links to.
        if self.folder.resolve() not in path.resolve().parents:
            return Absent(f"{self._name_of(path)} is a link out of the run's folder, which is not followed")
        return path

    def _name_of(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"


def files_of(entry: ExperimentSummary, out: Path) -> RunFiles:
    """The files of an experiment that the summary in ``out`` speaks of."""
    outside = Absent(f"its files are looked for in the study's folder only, not at {entry.recipe!r}")
    if "\0" in entry.recipe:
        return RunFiles(entry, outside)
    folder = (out / entry.recipe).parent
    inside = out.resolve() in (folder.resolve(), *folder.resolve().parents)
    return RunFiles(entry, folder if inside else outside)


def _end_of(path: Path) -> str:
    """The text of a file, or the end of a very long one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_ERROR))
        text = file.read().decode(errors="replace")
    return text if size <= _LONGEST_ERROR else f"[{size - _LONGEST_ERROR:,} bytes before this are left out]\n{text}"


def _numbers(values: object) -> Floats | None:
    """A list of numbers with NaN for null; None for anything else, and where there is no number."""
    if not isinstance(values, list) or not all(value is None or is_number(value) for value in values):
        return None
    numbers = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return None if np.isnan(numbers).all() else numbers


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
