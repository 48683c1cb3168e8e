"""Threads for loops of small steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LARGE_STEP = 50_000_000
"""Multiplications per forward from which a step is worth sharing between threads."""


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Compute in one thread where steps are small; afterwards torch has as many threads as before.

    A small step takes less time than several threads need to meet, and much less where other processes keep a thread
    from running: all the others then wait for it, spinning, many times per step. Measured on two cores with one other
    busy process: a linear probe on 128 values (5 million multiplications) took 2.4 s in one thread and 11 to 17 s in
    two. Large steps gain: on 2352 values (84 million), with nothing else running, 11 s in one thread and 8 s in two.

    Args:
        multiplications: of one step's forward, roughly: samples times parameters.
    """
    before = torch.get_num_threads()
    if multiplications < LARGE_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
