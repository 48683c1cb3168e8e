"""The machine's own peak, for ratios."""

from __future__ import annotations

import time
from collections.abc import Callable

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


def describe() -> str:
    """One line about the machine and its peak."""
    return (
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, matrix products: "
        f"{peak_gflops(torch.float32):.0f} GFLOP/s float32, {peak_gflops(torch.bfloat16):.0f} GFLOP/s bfloat16"
    )
