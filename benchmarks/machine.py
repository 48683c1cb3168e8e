"""The machine's own peak, for ratios."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable

import torch


def milliseconds(run: Callable[[], object], *, repeats: int = 20, warm_up: int = 5) -> float:
    """Median wall time of ``run`` in milliseconds."""
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]


def peak_gflops(dtype: torch.dtype, *, size: int = 2048) -> float:
    """Matrix-product rate of this machine, in GFLOP/s."""
    one, other = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2 * size**3 / milliseconds(lambda: one @ other) / 1e6


def peak_of(dtype: torch.dtype, shapes: Iterable[tuple[int, int, int]]) -> float:
    """Return the best rate, in GFLOP/s, of products of 1024, 2048 and 4096 squared and of the given shapes.

    Args:
        dtype: of the matrices.
        shapes: rows, inputs and outputs.
    """
    squares = ((size,) * 3 for size in (1024, 2048, 4096))
    return max(_rate(dtype, *shape) for shape in {*shapes, *squares})


def _rate(dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> float:
    one, other = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype).T
    return 2 * rows * inputs * outputs / milliseconds(lambda: one @ other, repeats=3, warm_up=1) / 1e6


def allocate_as_usual() -> None:
    """Let glibc treat freed memory as in a process that has trained for a while, whatever the engine has set."""
    libc = ctypes.CDLL(None)
    for option, value in ((-4, 65_536), (-1, 2**26)):  # M_MMAP_MAX, M_TRIM_THRESHOLD: its adaptive limit's largest
        libc.mallopt(option, value)
    libc.malloc_trim(0)


def describe() -> str:
    """One line about the machine and its peak."""
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, matrix products: "
        f"{peak_gflops(torch.float32):.0f} GFLOP/s float32, {peak_gflops(torch.bfloat16):.0f} GFLOP/s bfloat16"
    )
