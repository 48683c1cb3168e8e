"""Files of a study's folder for its report. For a missing or damaged file the report shows a sentence instead."""

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
"""Largest number of bytes of a traceback that are shown, from its end."""

Floats = npt.NDArray[np.float64]


@attrs.frozen
class Absence:
    """The reason why something cannot be shown."""

    reason: str


class LossCurve(NamedTuple):
    """A loss by optimiser step (0 for the first)."""

    steps: Floats
    values: Floats
    validated: Floats | None = None
    """Numbers of updates and the validation losses after them, ``[2, n]``, if the run was validated while it trained;
    the last one is that of the end."""


@attrs.frozen(eq=False)
class RunFiles:
    """The files of one experiment of a study."""

    entry: ExperimentSummary
    folder: Path | Absence
    """The folder of its files; absent if the summary points outside the study's folder."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.entry.name

    def recipe(self) -> Mapping[str, Any] | Absence:
        """Return ``recipe.json`` as plain values."""
        return self._json(Path(self.entry.recipe).name)

    def metrics(self) -> Sequence[Line] | Absence:
        """Return the logged metrics of each step; lines that cannot be read are left out."""
        path = self._path(METRICS_FILE)
        if isinstance(path, Absence):
            return path
        try:
            return metrics_in(path.read_bytes()).lines
        except OSError as error:
            return Absence(f"{self._name_of(path)} cannot be read: {error.strerror}")

    def curves(self) -> Mapping[str, LossCurve] | Absence:
        """Return each loss as it was logged."""
        if self.entry.num_steps == 0:
            return Absence("nothing was trained")
        entries = self.metrics()
        if isinstance(entries, Absence):
            return entries
        found: dict[str, list[tuple[float, float]]] = {}
        for entry in entries:
            for name, value in entry["losses"].items():
                found.setdefault(name, []).append((float(entry["step"]), float(value)))
        if not found:
            return Absence(self.sentence(METRICS_FILE, "has no losses"))
        curves = {}
        for name, points in found.items():
            steps, values = np.array(points, dtype=np.float64).T
            curves[name] = LossCurve(steps, values, self._validated(name, entries))
        return curves

    def _validated(self, name: str, entries: Sequence[Line]) -> Floats | None:
        """Return the validation losses while training and after it, ``[2, n]``; None without those while training."""
        losses = [(entry["step"] + 1, entry.get("validation_losses", {}).get(name)) for entry in entries]
        points = [(num_done, value) for num_done, value in losses if value is not None]
        final = (self.entry.losses or {}).get(name)
        if points and final is not None and final.validation is not None and self.entry.num_steps is not None:
            points.append((self.entry.num_steps, final.validation))
        return np.array(points, dtype=np.float64).T if points else None

    def chunks(self) -> Mapping[str, Floats] | Absence:
        """Return the validation loss per equal part of the reading order, by loss; NaN where nothing is predicted."""
        if self.entry.num_steps == 0 and not self.entry.losses:
            return Absence("nothing was trained")
        record = self._json(VALIDATION_FILE)
        if isinstance(record, Absence):
            return record
        losses = record.get("losses")
        entries = losses.items() if isinstance(losses, Mapping) else ()
        found = {name: _numbers(entry.get("by_chunk")) for name, entry in entries if isinstance(entry, Mapping)}
        present = {name: values for name, values in found.items() if values is not None}
        return present or Absence("its objective has no loss by parts of the sequence")

    def error(self) -> str | None:
        """Return the traceback of a run that failed."""
        path = self._path(ERROR_FILE)
        if isinstance(path, Absence):
            return None
        try:
            return _end_of(path)
        except OSError as error:
            return f"{self._name_of(path)} cannot be read: {error.strerror}"

    def sentence(self, name: str, problem: str) -> str:
        """Return a sentence about one of its files."""
        return problem if isinstance(self.folder, Absence) else f"{self.folder.name}/{name} {problem}"

    def _json(self, name: str) -> Mapping[str, Any] | Absence:
        path = self._path(name)
        if isinstance(path, Absence):
            return path
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            return Absence(f"{self._name_of(path)} is damaged: {error}")
        except OSError as error:
            return Absence(f"{self._name_of(path)} cannot be read: {error.strerror}")
        return values if isinstance(values, Mapping) else Absence(f"{self._name_of(path)} contains no object")

    def _path(self, name: str) -> Path | Absence:
        if isinstance(self.folder, Absence):
            return self.folder
        path = self.folder / name
        if not path.is_file():
            return Absence(f"{self._name_of(path)} does not exist")
        # People pass pages on: a page must not show files of this machine that a link in the folder leads to.
        if self.folder.resolve() not in path.resolve().parents:
            return Absence(f"{self._name_of(path)} is a link out of the run's folder, which is not followed")
        return path

    def _name_of(self, path: Path) -> str:
        return f"{path.parent.name}/{path.name}"


def files_of(entry: ExperimentSummary, out: Path) -> RunFiles:
    """Return the files of an experiment of the summary in ``out``."""
    outside = Absence(f"its files must be in the study's folder, not at {entry.recipe!r}")
    if "\0" in entry.recipe:
        return RunFiles(entry, outside)
    folder = (out / entry.recipe).parent
    inside = out.resolve() in (folder.resolve(), *folder.resolve().parents)
    return RunFiles(entry, folder if inside else outside)


def _end_of(path: Path) -> str:
    """Return the text of a file, or the end of a very long one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_ERROR))
        text = file.read().decode(errors="replace")
    return text if size <= _LONGEST_ERROR else f"[{size - _LONGEST_ERROR:,} bytes before this are left out]\n{text}"


def _numbers(values: object) -> Floats | None:
    """Return a list of numbers with NaN for null; None for anything else, and if there is no number."""
    if not isinstance(values, list) or not all(value is None or is_number(value) for value in values):
        return None
    numbers = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return None if np.isnan(numbers).all() else numbers


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value of a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
