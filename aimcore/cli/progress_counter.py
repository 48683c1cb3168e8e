"""How far a command has come: a bar on a terminal, a line now and then elsewhere; on stderr, beside what it prints."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aimcore.contracts.messages import printable
from aimcore.io.terminal import Terminal

_SECONDS_BETWEEN_LINES = 10.0
_NAME_WIDTH = 40


class Counting:
    """A context in which things are done one after another; Ctrl-C in it says how many were done."""

    def __init__(self, total: int, things: str, *, console: Terminal | None = None) -> None:
        """Begin with none done.

        Args:
            total: how many things there are.
            things: what they are, in the plural.
            console: where to show it; by default stderr.
        """
        self.total = total
        self.things = things
        self.done = 0
        self._console = console or Terminal(stderr=True)
        self._told = time.monotonic()
        # Lines that are printed meanwhile go above the bar, if they go to the same terminal.
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("checking", total=total)

    def __enter__(self) -> Self:
        if self._bar.disable:
            self._console.print(f"checking {self.total} {self.things}")
        self._bar.start()
        return self

    def begin(self, name: str) -> None:
        """The thing called ``name`` is next."""
        self._bar.update(self._task, description=f"checking {printable(name)[:_NAME_WIDTH]}")

    def end(self) -> None:
        """It is done."""
        self.done += 1
        self._bar.update(self._task, completed=self.done)
        if self._bar.disable and time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(f"{self.done} of {self.total} {self.things} checked")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            self._console.print(f"interrupted: {self.done} of {self.total} {self.things} checked")
