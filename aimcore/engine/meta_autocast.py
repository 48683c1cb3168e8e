"""Autocast for modules on the meta device, where costs are counted."""

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
    """Autocast for the meta device, which torch's own does not support: products have bfloat16 inputs and outputs."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self._enabled = enabled

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._enabled or func not in _PRODUCTS:
            return func(*args, **kwargs)
        return func(*map(_lowered, args), **{key: _lowered(value) for key, value in kwargs.items()})


def _lowered(value: Any) -> Any:
    """Convert a float32 tensor to bfloat16; return any other value unchanged."""
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.dtype == torch.float32 else value
