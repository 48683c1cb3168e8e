"""The learned temperature of a contrast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aimcore_objectives.gathering import sum_over_ranks
from aimcore_objectives.steps import at_least_float32

_LARGEST_SCALE = 100


class LogitScale(nn.Module):
    """A learned scale of the similarities, and for the sigmoid loss a bias.

    ``bounded`` keeps the scale in [1, 100] as CLIP does. SigLIP has no bound: released models end at a scale of 112.
    """

    no_weight_decay = frozenset({"log_scale", "bias"})

    def __init__(self, log_scale: float, bias: float | None = None, *, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded
        self.log_scale = nn.Parameter(torch.tensor([log_scale]))
        self.bias = None if bias is None else nn.Parameter(torch.tensor([bias]))

    def forward(self, similarities: Tensor, *, gather: bool = False) -> Tensor:
        """The logits, in float32 or better.

        Args:
            similarities: of any shape.
            gather: whether all ranks take part in one loss, and so judge its gradient together.
        """
        log_scale = at_least_float32(self.log_scale)
        scale: Tensor = _BoundedScale.apply(log_scale, gather) if self.bounded else log_scale.exp()
        logits = at_least_float32(similarities) * scale
        return logits if self.bias is None else logits + at_least_float32(self.bias)


class _BoundedScale(torch.autograd.Function):
    """``exp(log_scale)`` in [1, 100]; at and beyond a bound, only the gradients that lead back pass.

    torch's clamp lets none pass there: one step too far would fix the temperature for the rest of the run. The weight
    itself is left alone, because ZeRO trains a copy of it.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: Tensor, gather: bool) -> Tensor:
        # Bounded behind the exponential: in float32, exp(log(100)) is a little more than 100.
        scale = log_scale.exp().clamp(1, _LARGEST_SCALE)
        ctx.save_for_backward(scale)
        ctx.gather = gather
        return scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (scale,) = gradients, ctx.saved_tensors
        # What counts is the gradient of the whole batch, or two processes would not train as one does.
        total = sum_over_ranks(gradient) if ctx.gather else gradient
        # A step goes against the gradient: a negative one wants the scale larger.
        leads_out = ((scale >= _LARGEST_SCALE) & (total < 0)) | ((scale <= 1) & (total > 0))
        return (gradient * scale).masked_fill(leads_out, 0), None
