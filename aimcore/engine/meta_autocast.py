"""Autocast and fused attention for modules on the meta device, where costs are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset(
    {
        nn.functional.linear, nn.functional.conv2d, nn.functional.scaled_dot_product_attention,
        torch.matmul, torch.bmm, torch.mm, torch.einsum, torch.baddbmm, torch.addmm,
        Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__,
    }
)  # fmt: skip


class MetaAutocast(TorchFunctionMode):
    """Autocast for the meta device, which torch's own does not support: products have bfloat16 inputs and outputs.

    Args:
        enabled: whether products are in bfloat16.
        fused_attention: whether attention holds for the backward pass what fused kernels hold, instead of its
            probabilities. There is no backward pass then.
    """

    def __init__(self, enabled: bool, *, fused_attention: bool = False) -> None:
        super().__init__()
        self._enabled = enabled
        self._fused_attention = fused_attention

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._enabled and func in _PRODUCTS:
            args, kwargs = [_lowered(value) for value in args], {key: _lowered(value) for key, value in kwargs.items()}
        if self._fused_attention and func is nn.functional.scaled_dot_product_attention:
            return _FusedAttention.apply(*args[:3], kwargs.get("attn_mask"))
        return func(*args, **kwargs)


class _FusedAttention(torch.autograd.Function):
    """What a fused kernel holds: query, key, value, output, a number per row, and the mask as a bias."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # [B, H, N, E] in the memory of [B, N, H, E], as kernels return it: heads are joined without a copy.
        output = query.new_empty(*value.shape[:1], query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)
        log_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        bias = None if mask is None else query.new_empty(mask.shape)
        ctx.save_for_backward(query, key, value, output, log_sums, bias)
        return output


def _lowered(value: Any) -> Any:
    """Convert a float32 tensor to bfloat16; return any other value unchanged."""
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value
