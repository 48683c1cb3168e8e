"""A tracker that ends a run after some time, so that it can be resumed later."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from aimcore import Problem, Tracker, TrackerRun, component, positive

_MOST_MINUTES = 1e6
"""About two years."""


@component("time_budget")
class TimeBudget(Tracker):
    """Ends a run that has trained for ``minutes`` since it was started or resumed, with a checkpoint.

    The run ends as after Ctrl-C: its status is ``interrupted``, and ``--resume`` continues it with another budget of
    the same length. Only training counts, not validation and probing. Nothing is recorded.
    """

    minutes: float = 60.0

    def problems(self) -> Iterable[Problem]:
        """Yield a budget that is not positive."""
        yield from positive("minutes", self.minutes, _MOST_MINUTES)

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TimeBudgetRun:
        """Start the clock."""
        return TimeBudgetRun(self.minutes)


class TimeBudgetRun(TrackerRun):
    """The clock of one run."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record nothing."""

    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return whether the budget is spent."""
        return time.monotonic() >= self._end

    def close(self, status: str) -> None:
        """Close nothing."""
