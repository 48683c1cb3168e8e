"""Freed memory of a process on a CPU: kept until it is given back."""

from __future__ import annotations

import ctypes
import resource

import pytest
import torch

from aimcore.engine.host_memory import give_back_freed_memory, keep_freed_memory
from aimcore.engine.peak_memory import resident

PAGES = 16_384
BYTES = 4096 * PAGES
pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")


def page_faults() -> int:
    """Write to a new block of memory and free it; return how many pages the system had to give."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(BYTES, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_and_given_back() -> None:
    keep_freed_memory()
    # A small block that is taken right behind the large one leaves too little room for the next one, which then moves.
    # This ends when small blocks of each size are in the list of recently freed ones, from which they are taken first.
    assert any(page_faults() < PAGES / 10 for _ in range(20))
    kept = resident("VmRSS")
    give_back_freed_memory()
    assert kept - resident("VmRSS") > 0.9 * BYTES
    assert page_faults() > 0.9 * PAGES  # the pages are new again
