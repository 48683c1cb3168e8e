"""Where a run's metrics go, and who may end a run by them."""

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

    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Look at a step that is done, and return whether the run should stop here. Optional.

        Called on the first process after every update, also where ``log_every`` leaves the step out of :meth:`log`.
        The update is complete: if the answer is True, all processes save a checkpoint after this very step, and the run
        ends as after Ctrl-C. It is ``"interrupted"``, and a resumption goes on with the next step. After the last step
        there is nothing to stop, and the answer does not count.

        Args:
            step: 0 for the first.
            metrics: as for :meth:`log`.
        """
        return False

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
