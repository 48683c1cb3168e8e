"""Attention, forward alone and with backward: the fused kernel beside the explicit form, by shape and type.

    python benchmarks/attention.py

aimcore uses the explicit form for bfloat16 on CPUs where gradients are wanted, and the fused kernel everywhere else
(aimcore/modeling/attention.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from machine import describe, milliseconds
from torch import Tensor
from torch.nn import functional

Form = Callable[..., Tensor]
SHAPES = [(64, 4, 49, 32), (8, 8, 64, 16), (8, 3, 256, 128), (16, 8, 256, 64)]


def fused(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """PyTorch's own."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)


def explicit(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Two matrix products and a softmax; the first product adds the mask."""
    rows, width = query.flatten(0, 1), value.shape[-1]
    bias = torch.zeros(allowed.shape, dtype=query.dtype).masked_fill(~allowed, -math.inf)
    bias = bias.expand(*query.shape[:2], *allowed.shape[-2:]).flatten(0, 1)
    scores = torch.baddbmm(bias, rows, key.flatten(0, 1).transpose(1, 2), alpha=1 / math.sqrt(width))
    return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).reshape(query.shape)


def main() -> None:
    """Print one row per shape, type and whether gradients are taken."""
    print(describe())
    columns = f"{'batch, heads, tokens, head width':34} {'type':9} {'backward':9}"
    print(f"{columns} {'fused ms':>9} {'explicit ms':>12} {'ratio':>6}")
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for backward in (False, True):
                times = [_time(form, shape, dtype, backward) for form in (fused, explicit)]
                name = str(dtype).removeprefix("torch.")
                row = f"{shape!s:34} {name:9} {'with' if backward else 'without':9} {times[0]:9.2f} {times[1]:12.2f}"
                print(f"{row} {times[0] / times[1]:6.1f}")


def _time(form: Form, shape: tuple[int, ...], dtype: torch.dtype, backward: bool) -> float:
    inputs = [torch.randn(shape).to(dtype).requires_grad_(backward) for _ in range(3)]
    allowed = torch.ones(shape[0], 1, shape[2], shape[2]).tril().bool()

    def run() -> None:
        result = form(*inputs, allowed)
        if backward:
            result.sum().backward()

    return milliseconds(run)


if __name__ == "__main__":
    main()
