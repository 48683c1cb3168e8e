"""``metrics.jsonl``: one line per logged step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from aimcore.files import write_atomically

METRICS_FILE = "metrics.jsonl"

Line = Mapping[str, Any]
"""``step`` (0 for the first), ``losses`` by name, ``lr``, ``gradient_norm``, ``patches_per_second``, ``data_seconds``
(waiting for batches) and ``seconds`` (the whole step). At native resolution also ``num_images``, ``area`` (patches per
image), ``num_patches`` (their product) and ``padding_share``."""


class MetricsFile:
    """Appends lines, each on the disk's way before the next step; one writer per run."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open ``folder/metrics.jsonl`` for the steps from ``first_step`` on; lines at or beyond it are dropped."""
        path = folder / METRICS_FILE
        kept = [line for line in read_metrics(folder) if line["step"] < first_step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Add a line."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``folder/metrics.jsonl``; none where there is no file.

    A last line that a crash cut short is left out.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def mean_losses(lines: list[dict[str, Any]], num_last: int = 100) -> dict[str, float]:
    """Mean of each loss over the last ``num_last`` lines that have it."""
    names = {name: None for line in lines for name in line["losses"]}
    values = {name: [line["losses"][name] for line in lines[-num_last:] if name in line["losses"]] for name in names}
    return {name: sum(own) / len(own) for name, own in values.items() if own}


def flat(line: Line) -> dict[str, float]:
    """A line as trackers get it: numbers only, losses as ``loss/<name>``, without the step."""
    losses = {f"loss/{name}": value for name, value in line["losses"].items()}
    return {**losses, **{name: value for name, value in line.items() if name not in ("step", "losses")}}
