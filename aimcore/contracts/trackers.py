"""Trackers: components that receive metrics while a run trains, and may stop it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from aimcore.contracts.component import Component


class TrackerRun(ABC):
    """The connection of one run to a tracker."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a step."""

    def sync(self) -> None:  # noqa: B027  # nothing is a good default
        """Write logged metrics so that they survive a power cut; called before each checkpoint is saved.

        A resumed run does not repeat steps before its checkpoint, so their metrics would be lost. The default does
        nothing, which is right for a tracker that buffers no metrics.
        """

    def after_step(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return whether the run should stop after this step. Optional.

        The engine calls it on the first process after every update, including steps that ``log_every`` excludes from
        :meth:`log`. On True, all processes save a checkpoint after this step, and the run ends with the status
        ``"interrupted"``, as after Ctrl-C; a resumed run continues with the next step. The result after the last step
        is ignored.

        Args:
            step: number of the step, from 0.
            metrics: as for :meth:`log`.
        """
        return False

    @abstractmethod
    def close(self, status: str) -> None:
        """Close the connection; the run ended with ``status`` ``"finished"``, ``"interrupted"`` or ``"failed"``."""


class Tracker(Component, ABC):
    """A destination of a run's metrics, in addition to its ``metrics.jsonl``."""

    __slots__ = ()
    role: ClassVar[str] = "trackers"

    @abstractmethod
    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        """Start to track the run in ``folder``.

        ``resume_step`` above 0 continues a run at this step: discard its metrics from this step on.
        """

    def destination(self, folder: str) -> str | None:
        """Return the location that the run in ``folder`` writes to, if runs must not share it; otherwise None.

        It is called before any run of a study starts. A study is refused if two of its runs have the same destination.

        Raises:
            AimcoreError: the location cannot be used; the message says why.
        """
        return None
