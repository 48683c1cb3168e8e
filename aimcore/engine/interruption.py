"""Ctrl-C and SIGTERM as a flag that the training loop reads between steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_ECHO_SECONDS = 1.0
"""A launcher passes the terminal's Ctrl-C on to processes that had it already: not a second one."""


class Interruption:
    """A context in which Ctrl-C or SIGTERM sets :attr:`requested` instead of ending the process.

    A second Ctrl-C, a second or more after the first, ends it at once. Outside the main thread Python allows no
    handlers, and nothing is caught.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested = False
        self._clock = clock
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if not self.requested:
            self.requested, self._first = True, now
        elif number == signal.SIGINT and now - self._first >= _ECHO_SECONDS:
            raise KeyboardInterrupt
