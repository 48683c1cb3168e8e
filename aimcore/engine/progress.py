"""Progress of a run: a bar on a terminal, a log line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Self

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aimcore.engine.training_engine import StepResult
from aimcore.io.terminal import Terminal

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A context that receives the result of every step; this base class shows nothing."""

    def __init__(self, name: str, *, first_step: int, num_steps: int) -> None:
        self.name = name
        self.first_step = first_step
        self.num_steps = num_steps
        self.num_images = 0
        """Number of images in the steps of this process."""
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *raised: object) -> None:
        """Remove the display; this class has none."""

    def update(self, result: StepResult, done: int) -> None:
        """Report that ``done`` steps of the run are done, the last one with ``result``."""
        self.num_images += result.num_images

    @property
    def seconds(self) -> float:
        """Time since the first step of this process."""
        return max(time.perf_counter() - self._started, 1e-9)

    @property
    def images_per_second(self) -> float:
        """Mean rate since the first step of this process."""
        return self.num_images / self.seconds


class BarProgress(Progress):
    """A bar with the rate, the loss and the remaining time."""

    def __init__(self, name: str, *, first_step: int, num_steps: int, console: Console | None = None) -> None:
        super().__init__(name, first_step=first_step, num_steps=num_steps)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=console or Terminal(stderr=True),
        )
        self._task = self._bar.add_task(name, total=num_steps, completed=first_step, numbers="")

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError):  # the terminal was closed
            self._bar.stop()

    def update(self, result: StepResult, done: int) -> None:
        """Update the bar."""
        super().update(result, done)
        numbers = f"{_numbers(result)}  {self.images_per_second:.0f} images/s"
        self._bar.update(self._task, completed=done, numbers=numbers)


class LineProgress(Progress):
    """A log line every ten seconds, and one at the end."""

    def __init__(
        self,
        name: str,
        *,
        first_step: int,
        num_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name, first_step=first_step, num_steps=num_steps)
        self._clock = clock
        self._said = clock()

    def update(self, result: StepResult, done: int) -> None:
        """Log a line if ten seconds have passed since the last one, or at the end."""
        super().update(result, done)
        if self._clock() - self._said < _SECONDS_BETWEEN_LINES and done < self.num_steps:
            return
        self._said = self._clock()
        left = timedelta(seconds=round((self.num_steps - done) * self.seconds / (done - self.first_step)))
        text = "{}: step {} of {}, {}, {:.0f} images/s, {} left"
        logger.info(text, self.name, done, self.num_steps, _numbers(result), self.images_per_second, left)


def progress_for(name: str, *, shown: bool, first_step: int, num_steps: int) -> Progress:
    """Return the progress display for the standard error stream; one that shows nothing unless ``shown``."""
    kind = Progress if not shown else BarProgress if Terminal(stderr=True).is_terminal else LineProgress
    return kind(name, first_step=first_step, num_steps=num_steps)


def _numbers(result: StepResult) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
    if not result.padding_share:
        return losses
    area = result.num_patches // result.num_images
    return f"{losses}, {result.num_images} x {area} patches ({result.padding_share:.0%} padding)"
