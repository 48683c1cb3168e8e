"""The learned temperature of contrastive losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aimcore_objectives.gathering import sum_over_ranks
from aimcore_objectives.steps import at_least_float32

_LARGEST_SCALE = 100


class LogitScale(nn.Module):
    """A learned scale of similarities, with a learned bias for the sigmoid loss.

    ``bounded`` keeps the scale in [1, 100] as CLIP does. SigLIP has no bound: released models end at a scale of 112.
    """

    no_weight_decay = frozenset({"log_scale", "bias"})

    def __init__(self, log_scale: float, bias: float | None = None, *, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded
        self.log_scale = nn.Parameter(torch.tensor([log_scale]))
        self.bias = None if bias is None else nn.Parameter(torch.tensor([bias]))

    def forward(self, similarities: Tensor, *, gather: bool = False) -> Tensor:
        """Return the logits, in float32 or float64.

        Args:
            similarities: similarities of any shape.
            gather: whether all ranks share one loss, so that the gradient of the scale is summed over them.
        """
        log_scale = at_least_float32(self.log_scale)
        scale: Tensor = _BoundedScale.apply(log_scale, gather) if self.bounded else log_scale.exp()
        logits = at_least_float32(similarities) * scale
        return logits if self.bias is None else logits + at_least_float32(self.bias)


class _BoundedScale(torch.autograd.Function):
    """``exp(log_scale)`` in [1, 100]; at and beyond a bound, only the gradients that lead back pass.

    torch's clamp would block all gradients there: one step too far would fix the temperature for the rest of the run.
    The weight itself is not clamped, because ZeRO trains a copy of it.
    """

    @staticmethod
    def forward(ctx: Any, log_scale: Tensor, gather: bool) -> Tensor:
        # Clamp after the exponential: in float32, exp(log(100)) is slightly more than 100.
        scale = log_scale.exp().clamp(1, _LARGEST_SCALE)
        ctx.save_for_backward(scale)
        ctx.gather = gather
        return scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (scale,) = gradients, ctx.saved_tensors
        # The gradient of the whole batch decides, so that two processes train like one.
        total = sum_over_ranks(gradient) if ctx.gather else gradient
        # A step goes against the gradient: a negative gradient increases the scale.
        leads_out = ((scale >= _LARGEST_SCALE) & (total < 0)) | ((scale <= 1) & (total > 0))
        return (gradient * scale).masked_fill(leads_out, 0), None
