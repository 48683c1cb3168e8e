"""Signals that end training: a flag that the training loop reads between steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from aimcore.io import launcher
from aimcore.io.signals import ENDING

_ECHO_SECONDS = 1.0
"""A launcher forwards the terminal's Ctrl-C to processes that received it already: that is not a second one."""


class Interruption:
    """A context in which Ctrl-C, SIGTERM or SIGHUP sets :attr:`requested` instead of ending the process.

    A second Ctrl-C, a second or more after the first, ends the process at once. A signal that was ignored before stays
    ignored, as is the convention: SIGHUP under ``nohup``, SIGINT in what a script runs in the background. Outside the
    main thread Python allows no handlers, and no signal is caught.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, parent: Callable[[], int] = os.getppid) -> None:
        self._signalled = False
        self._clock = clock
        self._first = 0.0
        self._before: dict[int, Any] = {}
        self._parent = parent
        self._launcher = parent() if launcher.is_launched() else None

    @property
    def requested(self) -> bool:
        """Whether a signal came, or the launcher died: no other process would end this one then."""
        return self._signalled or (self._launcher is not None and self._parent() != self._launcher)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                # None is a handler that was not set from Python, and could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
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
        if not self._signalled:
            self._signalled, self._first = True, now
        elif number == signal.SIGINT and now - self._first >= _ECHO_SECONDS:
            raise KeyboardInterrupt
