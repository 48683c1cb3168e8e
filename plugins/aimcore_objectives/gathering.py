"""Exchange of embeddings between ranks, for losses over the global batch.

Shape suffixes: A images or captions of all ranks, B of this one, E width of embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def from_all(embeddings_BE: Tensor, gather: bool) -> tuple[Tensor, int]:
    """Return the embeddings of all ranks, with gradients, and the index of this rank's first one."""
    if not gather or _is_alone():
        return embeddings_BE, 0
    everyone_AE: Tensor = _Gathered.apply(embeddings_BE)
    return everyone_AE, dist.get_rank() * len(embeddings_BE)


class _Gathered(torch.autograd.Function):
    """Concatenates the embeddings of all ranks; a rank's gradient is the sum over all ranks.

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
    """Return the sum over all ranks, on each rank, without gradients."""
    total = values.detach().clone(memory_format=torch.contiguous_format)
    if not _is_alone():
        dist.all_reduce(total)
    return total


def _is_alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1
