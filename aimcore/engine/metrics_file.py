"""Writing of ``metrics.jsonl``, and a search for missing lines. :mod:`aimcore.io.metrics_lines` reads the file."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from loguru import logger

from aimcore.experiment import Experiment
from aimcore.io.atomic_files import AppendedFile, write_atomically
from aimcore.io.metrics_lines import Line, load_metrics
from aimcore.io.run_folder import RunFolder

_SHOWN_RANGES = 10


class MetricsFile(AppendedFile):
    """The metrics of a run while it trains; each line is handed to the system before the next step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open ``folder/metrics.jsonl`` for the steps from ``first_step`` on; lines at or beyond it are dropped.

        Damaged lines are set aside in ``metrics.damaged.txt``.
        """
        run, found = RunFolder(folder), load_metrics(folder)
        _set_aside(run, found.damaged)
        kept = [line for line in found.lines if line["step"] < first_step]
        super().__init__(run.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, line: Line) -> None:
        """Add a line.

        Raises:
            CannotWrite: the system refused, or the file was removed.
        """
        self.append(json.dumps(line, allow_nan=False) + "\n")


def _set_aside(run: RunFolder, damaged: Collection[tuple[int, bytes]]) -> None:
    """Append damaged lines to a file of their own."""
    if not damaged:
        return
    path = run.damaged_metrics
    earlier = path.read_bytes() if path.exists() else b""
    write_atomically(path, earlier + b"".join(line + b"\n" for _, line in damaged))
    numbers = in_ranges([number for number, _ in damaged])
    logger.warning("{}: damaged lines ({}) are set aside in {}", run.metrics, numbers, path)


def missing_steps(lines: Collection[Line], experiment: Experiment, num_done: int) -> list[int]:
    """Return the steps below ``num_done`` that should have been logged and are not among ``lines``."""
    begun = 0 if experiment.branch is None else experiment.branch.step
    every, last = experiment.log_every, experiment.num_steps - 1
    present = {line["step"] for line in lines}
    logged = (step for step in range(begun, num_done) if step % every == 0 or step == last)
    return [step for step in logged if step not in present]


def in_ranges(numbers: Collection[int], every: int = 1) -> str:
    """Format numbers for a message: neighbours at a distance of ``every`` form a range; at most ten ranges are shown.

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
    """Return the mean of each loss over the last ``num_last`` lines that have it."""
    names = {name: None for line in lines for name in line["losses"]}
    values = {name: [line["losses"][name] for line in lines[-num_last:] if name in line["losses"]] for name in names}
    return {name: sum(own) / len(own) for name, own in values.items() if own}


def flat(line: Line) -> dict[str, float]:
    """Convert a line for trackers: numbers only, without the step.

    Losses are called ``loss/<name>``, and validation losses ``validation/<name>``.
    """
    losses = {f"loss/{name}": value for name, value in line["losses"].items()}
    validation = {f"validation/{name}": value for name, value in line.get("validation_losses", {}).items()}
    rest = {name: value for name, value in line.items() if name not in ("step", "losses", "validation_losses")}
    return {**losses, **validation, **rest}
