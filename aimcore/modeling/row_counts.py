"""Few different numbers of rows in the products of a training step.

The number of scored patches differs from step to step. oneDNN compiles a kernel for each new number of rows, which can
take longer than the product, and the tensor cores of GPUs want multiples of 8.

Shape suffixes: M rows, D width, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

_EXACT = 64
"""Largest number of rows that is not rounded, and the smallest step between two numbers."""


def rounded_up(num_rows: int) -> int:
    """Return the next of the numbers of rows that are used: at most 16 between two powers of two.

    >>> [rounded_up(number) for number in (0, 3, 64, 65, 1000, 1025, 2000)]
    [0, 3, 64, 128, 1024, 1088, 2048]
    """
    step = 1 if num_rows <= _EXACT else max(_EXACT, 1 << (num_rows.bit_length() - 5))
    return -(-num_rows // step) * step


def with_repeated_last(where_M: Tensor) -> Tensor:
    """Repeat the last of the positions ``[M]`` until their number is that of :func:`rounded_up`.

    Drop the outputs of the repeated ones: no gradient comes back from them then.
    """
    more = rounded_up(len(where_M)) - len(where_M)
    return functional.pad(where_M[None], (0, more), mode="replicate")[0] if more else where_M


def in_rounded_rows(layer: Callable[[Tensor], Tensor], tokens_MD: Tensor) -> Tensor:
    """Return ``layer(tokens_MD)``, ``[M, K]``, computed with rows of zeros up to the number of :func:`rounded_up`."""
    more = rounded_up(len(tokens_MD)) - len(tokens_MD)
    return layer(functional.pad(tokens_MD, (0, 0, 0, more)))[: len(tokens_MD)] if more else layer(tokens_MD)
