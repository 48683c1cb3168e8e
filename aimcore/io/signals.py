"""Signals that end a command: Ctrl-C, SIGTERM, and SIGHUP of a closed terminal. Nothing here needs torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that this system has."""


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """In the block, SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.

    This lets a run record that it was interrupted, and lets a command end its workers and say how to continue. A signal
    that is ignored or has another handler is not changed. Outside of the main thread Python allows no handlers.
    """
    changed = []
    if threading.current_thread() is threading.main_thread():
        changed = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
