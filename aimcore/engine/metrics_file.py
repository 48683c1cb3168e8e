"""``metrics.jsonl``: one line per logged step, and what is missing of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import attrs
from loguru import logger

from aimcore.contracts.errors import RunFolderError
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import write_atomically, writing

METRICS_FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.damaged.txt"
"""Lines of ``metrics.jsonl`` that could not be read, set aside when the run was resumed."""

_SHOWN_RANGES = 10

Line = Mapping[str, Any]
"""``step`` (0 for the first), ``losses`` by name, ``lr``, ``gradient_norm``, ``patches_per_second``, ``data_seconds``
(waiting for batches) and ``seconds`` (the whole step). At native resolution also ``num_images``, ``area`` (patches per
image), ``num_patches`` (their product) and ``padding_share``."""


@attrs.frozen
class Metrics:
    """The content of ``metrics.jsonl``."""

    lines: list[dict[str, Any]]
    """In the order of steps. Of two lines of one step, the later one."""
    damaged: list[tuple[int, bytes]] = attrs.field(factory=list)
    """Lines that are no metrics of a step, with their numbers; a last line that a crash cut short is not among them."""


class MetricsFile:
    """Appends lines, each on the disk's way before the next step; one writer per run."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open ``folder/metrics.jsonl`` for the steps from ``first_step`` on; lines at or beyond it are dropped.

        Damaged lines are set aside in ``metrics.damaged.txt``.
        """
        self._path = folder / METRICS_FILE
        found = load_metrics(folder)
        _set_aside(folder, found.damaged)
        kept = [line for line in found.lines if line["step"] < first_step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        with writing(self._path):
            self._file = self._path.open("ab")

    def write(self, line: Line) -> None:
        """Add a line.

        Raises:
            CannotWrite: the system refused; or the file is not there any more, and nobody would ever find the line.
        """
        text = json.dumps(line, allow_nan=False) + "\n"
        with writing(self._path):
            self._file.write(text.encode())
            self._file.flush()
            self._path.stat()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file.

        Raises:
            CannotWrite: what an earlier write left behind is refused again.
        """
        with writing(self._path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def load_metrics(folder: Path) -> Metrics:
    """The lines of ``folder/metrics.jsonl``, the damaged ones apart; none where there is no file.

    Raises:
        RunFolderError: the system cannot read the file.
    """
    path = folder / METRICS_FILE
    try:
        content = path.read_bytes() if os.path.lexists(path) else b""
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error}): repair it, or move it away and resume again") from error
    *lines, last = content.split(b"\n")
    parsed = [_parsed(line) for line in lines]
    ending = _parsed(last)  # whole lines end with "\n"; of the last one, a power cut may have taken only that
    by_step = {line["step"]: line for line in (*parsed, ending) if line is not None}
    damaged = [(number, line) for number, line in enumerate(lines, 1) if parsed[number - 1] is None]
    return Metrics([by_step[step] for step in sorted(by_step)], damaged)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``folder/metrics.jsonl`` that can be read, in the order of steps; none where there is no file."""
    return load_metrics(folder).lines


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The metrics of a step; None if the line does not hold any."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_step(found) else None


def _is_step(found: Mapping[str, Any]) -> bool:
    step, losses = found.get("step"), found.get("losses")
    if type(step) is not int or step < 0 or not isinstance(losses, dict):
        return False
    others = [value for name, value in found.items() if name != "losses" and value is not None]
    return all(type(value) in (int, float) and _is_finite(value) for value in (*losses.values(), *others))


def _is_finite(value: float) -> bool:
    """Whether a float can hold it; NaN compares as false with every number."""
    return abs(value) <= sys.float_info.max


def _set_aside(folder: Path, damaged: Collection[tuple[int, bytes]]) -> None:
    """Append damaged lines to a file of their own."""
    if not damaged:
        return
    path = folder / DAMAGED_FILE
    earlier = path.read_bytes() if path.exists() else b""
    write_atomically(path, earlier + b"".join(line + b"\n" for _, line in damaged))
    numbers = in_ranges([number for number, _ in damaged])
    logger.warning("{}: damaged lines ({}) are set aside in {}", folder / METRICS_FILE, numbers, path)


def missing_steps(lines: Collection[Line], experiment: Experiment, num_done: int) -> list[int]:
    """Steps that should have been logged when ``num_done`` updates were done, and are not among ``lines``."""
    begun = 0 if experiment.branch is None else experiment.branch.step
    every, last = experiment.log_every, experiment.num_steps - 1
    present = {line["step"] for line in lines}
    logged = (step for step in range(begun, num_done) if step % every == 0 or step == last)
    return [step for step in logged if step not in present]


def in_ranges(numbers: Collection[int], every: int = 1) -> str:
    """Numbers for a message, neighbours at a distance of ``every`` as a range, and at most ten ranges.

    >>> in_ranges([1, 4, 5, 6])
    '1, 4 to 6'
    """
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number - ranges[-1][1] <= every:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in ranges[:_SHOWN_RANGES]]
    return ", ".join([*shown, *(["..."] if len(ranges) > _SHOWN_RANGES else [])])


def mean_losses(lines: list[dict[str, Any]], num_last: int = 100) -> dict[str, float]:
    """Mean of each loss over the last ``num_last`` lines that have it."""
    names = {name: None for line in lines for name in line["losses"]}
    values = {name: [line["losses"][name] for line in lines[-num_last:] if name in line["losses"]] for name in names}
    return {name: sum(own) / len(own) for name, own in values.items() if own}


def flat(line: Line) -> dict[str, float]:
    """A line as trackers get it: numbers only, losses as ``loss/<name>``, without the step."""
    losses = {f"loss/{name}": value for name, value in line["losses"].items()}
    return {**losses, **{name: value for name, value in line.items() if name not in ("step", "losses")}}
