"""Where a run's metrics go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from aimcore.contracts.component import Component


class TrackerRun(ABC):
    """One run's open line to a tracker."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""

    def sync(self) -> None:  # noqa: B027  # nothing is a good default
        """Make sure that what was logged outlasts a power cut. Called before each checkpoint is saved.

        A run that is resumed repeats nothing before its checkpoint, so a metric that is lost then is lost for good. By
        default nothing is done, which is right for a tracker that keeps no metric to itself.
        """

    @abstractmethod
    def close(self, status: str) -> None:
        """The run ended: ``"finished"``, ``"interrupted"`` or ``"failed"``."""


class Tracker(Component, ABC):
    """Where a run's metrics go besides its own ``metrics.jsonl``."""

    __slots__ = ()
    role: ClassVar[str] = "trackers"

    @abstractmethod
    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        """Begin to track the run in ``folder``; ``resume_step`` > 0 continues one (drop what lies beyond it)."""

    def destination(self, folder: str) -> str | None:
        """The place that the run in ``folder`` replaces or continues, if it must be that run's alone.

        Two runs of a study with one destination are refused before anything runs. By default there is none: runs may
        share whatever the tracker writes to. It is asked for before anything runs.

        Raises:
            AimcoreError: the place cannot be used; the message says why.
        """
        return None
