"""Threads that each read images of their own, with operations of one thread.

Operations that share their rows among threads wait for the slowest thread at the end of each. Threads with images of
their own wait once per block.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")


class ImageThreads:
    """As many threads as torch's operations use in the thread that calls, started at the first call."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._made_for: tuple[int, int] | None = None

    def each(self, read: Callable[[Part], None], parts: Sequence[Part]) -> None:
        """Call ``read`` once for each part, without gradients. A thread takes the next part when it is free.

        Raises:
            Exception: the first exception of ``read``.
        """
        number, remaining, is_inference = torch.get_num_threads(), iter(list(parts)), torch.is_inference_mode_enabled()

        def work() -> None:
            with torch.inference_mode(is_inference), torch.no_grad():
                for part in remaining:
                    read(part)

        for future in [self._threads(number).submit(work) for _ in range(number)]:
            future.result()

    def _threads(self, number: int) -> ThreadPoolExecutor:
        made_for = os.getpid(), number  # a forked process has none of its parent's threads
        if self._pool is None or self._made_for != made_for:
            self._pool, self._made_for = _single_threaded_pool(number), made_for
        return self._pool


def _single_threaded_pool(number: int) -> ThreadPoolExecutor:
    """Start ``number`` threads whose operations use one thread."""
    all_started = threading.Barrier(number + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # without this call the thread would take the number below, at its first operation
        all_started.wait()

    pool = ThreadPoolExecutor(number, "aimcore-images")
    for _ in range(number):
        pool.submit(begin)
    all_started.wait()
    torch.set_num_threads(number)  # torch takes the last number that any thread has set as that of later threads
    return pool
