"""Threads for loops of small steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch

_WIDE = 1024
"""Values per sample from which a step is long enough to share."""


@contextmanager
def one_thread_for(shape: Sequence[int]) -> Iterator[None]:
    """Compute in one thread where samples have few values; afterwards torch has as many threads as before.

    A step on few values takes less time than several threads need to meet, and much less where other processes keep a
    thread from running: all the others then wait for it, spinning, many times per step.
    """
    before = torch.get_num_threads()
    if prod(shape) < _WIDE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
