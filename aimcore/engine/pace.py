"""How fast a process trains, and how long it waits for data."""

from __future__ import annotations

from loguru import logger

from aimcore.engine.distributed import threads_per_process

MOST_WAITING = 0.1
"""Share of the time of steps from which on waiting for data is reported."""
FIRST_WINDOW, LONGEST_WINDOW = 60.0, 3600.0
"""Seconds of the first window of steps that is judged, and of the longest. Each is twice as long as the one before."""


class Pace:
    """Patches per second, and the share of time that steps wait for data.

    Both are without the first step, which includes allocations and the start of the data loader. The share is judged in
    windows of time, and a warning says what to change, at most once per window.
    """

    def __init__(self, name: str, num_workers: int) -> None:
        """Start before the first step.

        Args:
            name: name of the run.
            num_workers: number of data processes, for the warning.
        """
        self._name = name
        self._num_workers = num_workers
        self._first: tuple[int, float] | None = None
        self._patches = 0
        self._seconds = 0.0
        self._waited = 0.0
        self._window = FIRST_WINDOW
        self._judged = (0.0, 0.0)

    def add(self, num_patches: int, seconds: float, waited: float) -> None:
        """Count a step that took ``seconds``, of which it ``waited`` for data."""
        if self._first is None:
            self._first = (num_patches, seconds)
            return
        self._patches += num_patches
        self._seconds += seconds
        self._waited += waited
        if self._seconds - self._judged[0] >= self._window:
            self._judge()

    @property
    def patches_per_second(self) -> float | None:
        """The rate, or that of the first step if only one was made, or None before the first step."""
        if self._seconds:
            return self._patches / self._seconds
        return self._first[0] / self._first[1] if self._first else None

    @property
    def data_share(self) -> float | None:
        """Share of the time that steps waited for data; None before the second step."""
        return self._waited / self._seconds if self._seconds else None

    def _judge(self) -> None:
        """Warn if the steps since the last judgement waited too long."""
        seconds, waited = self._seconds - self._judged[0], self._waited - self._judged[1]
        self._judged = (self._seconds, self._waited)
        self._window = min(2 * self._window, LONGEST_WINDOW)
        if waited > MOST_WAITING * seconds:
            logger.warning(
                "{}: {:.0%} of the last {:.0f} s of training were spent waiting for data. {}",
                self._name, waited / seconds, seconds, self._advice(),
            )  # fmt: skip

    def _advice(self) -> str:
        cores = threads_per_process()
        now = f"data.num_workers is {self._num_workers}; cores of this process: {cores}"
        stored = "store smaller images, on a local disk, in shards or as a zarr group (aimcore data convert)"
        if self._num_workers < cores:
            return f"Raise data.num_workers ({now}). If that does not help, {stored}"
        return f"More workers will hardly help ({now}): {stored}"
