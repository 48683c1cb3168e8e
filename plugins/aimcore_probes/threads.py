"""Threads for loops of small steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGE_STEP = 50_000_000
"""Multiplications of a forward pass from which several threads are faster."""


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Compute in one thread if steps are small; afterwards torch has as many threads as before.

    A small step takes less time than the synchronisation of several threads, and much less if other processes keep a
    thread from running: all other threads then wait for it, spinning, many times per step. Measured on two cores with
    one other busy process: a linear probe on 128 values (5 million multiplications) took 2.4 s in one thread and 11 to
    17 s in two. Large steps gain: on 2352 values (84 million), on an idle machine, 11 s in one thread and 8 s in two.

    Args:
        multiplications: of one forward pass, roughly: samples times parameters.
    """
    before = torch.get_num_threads()
    if multiplications < LARGE_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
