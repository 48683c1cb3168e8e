"""What losses over the global batch exchange between ranks.

Shape suffixes: A images or captions of all ranks, B of this one, E width of embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def from_all(embeddings_BE: Tensor, gather: bool) -> tuple[Tensor, int]:
    """Embeddings of all ranks, through which gradients pass, and where this rank's begin."""
    if not gather or _is_alone():
        return embeddings_BE, 0
    everyone_AE: Tensor = _Gathered.apply(embeddings_BE)
    return everyone_AE, dist.get_rank() * len(embeddings_BE)


class _Gathered(torch.autograd.Function):
    """Embeddings of all ranks, in their order; each rank's gradient is the sum of what all ranks ask of it.

    torch's own differentiable gathers are deprecated in one place and private in the other.
    """

    @staticmethod
    def forward(ctx: Any, embeddings_BE: Tensor) -> Tensor:
        everyone = [torch.empty_like(embeddings_BE) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, embeddings_BE.contiguous())
        ctx.number = len(embeddings_BE)
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (total_AE,) = gradients
        return sum_over_ranks(total_AE)[dist.get_rank() * ctx.number :][: ctx.number]


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, on each of them; gradients do not pass."""
    total = values.detach().clone(memory_format=torch.contiguous_format)
    if not _is_alone():
        dist.all_reduce(total)
    return total


def _is_alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1
