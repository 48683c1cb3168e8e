"""Freed memory of a process that trains or embeds on a CPU: kept for the next step.

A step frees its activations and asks for as much again. glibc gives large blocks back to the system at once, and the
system then fills new pages with zeros: tens of thousands of page faults per step (docs/performance.md).
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)
_KEPT = 2**31 - 1
"""Freed bytes at the end of the heap that the process keeps: mallopt's largest number."""


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees. Does nothing with other C libraries than glibc."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def give_back_freed_memory() -> None:
    """Give memory that this process has freed and kept back to the system."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
