"""The progress of a command on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aimcore.contracts.messages import printable
from aimcore.io.terminal import Terminal

SECONDS_BETWEEN_LINES = 10.0
_NAME_WIDTH = 40


def progress_bar(console: Terminal) -> Progress:
    """Return a bar for a terminal; it is disabled elsewhere.

    Lines that are printed in the meantime appear above it, if they go to the same terminal.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=False,
        disable=not console.is_terminal,
    )


class Counting:
    """A context that counts finished items. On Ctrl-C it prints how many were finished."""

    def __init__(self, total: int, things: str, *, console: Terminal | None = None) -> None:
        """Start with no item finished.

        Args:
            total: number of items.
            things: name of the items, in the plural.
            console: where progress is shown; by default stderr.
        """
        self.total = total
        self.things = things
        self.done = 0
        self._console = console or Terminal(stderr=True)
        self._told = time.monotonic()
        self._bar = progress_bar(self._console)
        self._task = self._bar.add_task("checking", total=total)

    def __enter__(self) -> Self:
        if self._bar.disable:
            self._console.print(f"checking {self.total} {self._things}")
        self._bar.start()
        return self

    def begin(self, name: str) -> None:
        """Announce the next item."""
        self._bar.update(self._task, description=f"checking {printable(name)[:_NAME_WIDTH]}")

    def end(self) -> None:
        """Count the current item as finished."""
        self.done += 1
        self._bar.update(self._task, completed=self.done)
        if self._bar.disable and time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(f"{self.done} of {self.total} {self._things} checked")

    @property
    def _things(self) -> str:
        return self.things.removesuffix("s") if self.total == 1 else self.things

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            self._console.print(f"interrupted: {self.done} of {self.total} {self._things} checked")


class Stages:
    """A context that shows the progress of work in stages, each with a number of units of its own."""

    def __init__(self, interrupted: str = "no file was written") -> None:
        """Start without a stage. On Ctrl-C, ``interrupted`` is printed."""
        self._interrupted = interrupted
        self._console = Terminal(stderr=True)
        self._told = time.monotonic()
        self._doing = ""
        self._bar = progress_bar(self._console)
        self._task = self._bar.add_task("")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def progress(self, doing: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units are finished."""
        if doing != self._doing:
            self._doing = doing
            self._bar.reset(self._task, total=total, description=doing)
        self._bar.update(self._task, completed=done)
        if self._bar.disable and (done == total or time.monotonic() - self._told > SECONDS_BETWEEN_LINES):
            self._told = time.monotonic()
            self._console.print(f"{doing}: {done:,} of {total:,}", highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            self._console.print(f"interrupted: {self._interrupted}")
