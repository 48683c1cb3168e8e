"""Reading ``metrics.jsonl``: all of it, line by line, or its end. The engine writes it. Nothing here needs torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from aimcore.contracts.errors import RunFolderError
from aimcore.io.run_folder import RunFolder

_END_BYTES = 2**16
_LOSSES = ("losses", "validation_losses")

Line = Mapping[str, Any]
"""``step`` (0 for the first), ``losses`` by name, ``lr``, ``gradient_norm``, ``patches_per_second``, ``data_seconds``
(waiting for batches) and ``seconds`` (the whole step, without validation). Where the run was validated after the step,
``validation_losses`` by name. At native resolution also ``num_images``, ``area`` (patches per
image), ``num_patches`` (their product) and ``padding_share``."""


@attrs.frozen
class Metrics:
    """The content of ``metrics.jsonl``."""

    lines: list[dict[str, Any]]
    """In the order of steps. Of two lines of one step, the later one."""
    damaged: list[tuple[int, bytes]] = attrs.field(factory=list)
    """Numbers and content of lines that are not the metrics of a step, without a last line that a crash cut short."""


def load_metrics(folder: Path) -> Metrics:
    """The metrics of the run in ``folder``; no lines if the file does not exist.

    Raises:
        RunFolderError: the system cannot read the file.
    """
    path = RunFolder(folder).metrics
    try:
        return metrics_in(path.read_bytes() if os.path.lexists(path) else b"")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error}): repair it, or move it away and resume again") from error


def metrics_in(content: bytes) -> Metrics:
    """The metrics that the content of a file holds."""
    *lines, last = content.split(b"\n")
    parsed = [_metrics_of_step(line) for line in lines]
    ending = _metrics_of_step(last)  # whole lines end with "\n"; a power cut may have removed only that of the last one
    by_step = {line["step"]: line for line in (*parsed, ending) if line is not None}
    damaged = [(number, line) for number, line in enumerate(lines, 1) if parsed[number - 1] is None]
    return Metrics([by_step[step] for step in sorted(by_step)], damaged)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``folder/metrics.jsonl`` that can be read, in the order of steps; none if the file does not exist.

    Raises:
        RunFolderError: the system cannot read the file.
    """
    return load_metrics(folder).lines


def last_lines(folder: Path, most: int) -> list[dict[str, Any]]:
    """The last whole lines that are JSON objects, without reading the earlier ones; none if there is no such file.

    Their values are not checked.
    """
    path = RunFolder(folder).metrics
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return []
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            whole = file.read(_END_BYTES).split(b"\n")[:-1]
    except OSError:
        return []
    # The first line of the part that was read is mostly cut.
    found = [entry for line in whole[-most - 1 :] if (entry := _object_in(line)) is not None]
    return found[-most:]


def _metrics_of_step(line: bytes) -> dict[str, Any] | None:
    """The metrics of a step; None if the line does not hold any."""
    found = _object_in(line)
    return found if found is not None and _is_step(found) else None


def _object_in(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_step(found: Line) -> bool:
    step, losses, validation = found.get("step"), found.get("losses"), found.get("validation_losses", {})
    if type(step) is not int or step < 0 or not isinstance(losses, dict) or not isinstance(validation, dict):
        return False
    others = [value for name, value in found.items() if name not in _LOSSES and value is not None]
    values = (*losses.values(), *validation.values(), *others)
    return all(type(value) in (int, float) and _is_finite(value) for value in values)


def _is_finite(value: float) -> bool:
    """Whether a float can hold it; NaN compares as false with every number."""
    return abs(value) <= sys.float_info.max
