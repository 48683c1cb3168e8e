"""The linear function of ZeRO stage 3, with the rounding of torch's own.

DeepSpeed replaces ``torch.nn.functional.linear`` by a function whose backward pass gathers the weight again, instead of
holding it. In bfloat16 that function rounds a product before it adds the bias, and torch rounds once: training at stage
3 would give other losses than at the other stages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from aimcore.engine.deepspeed_library import load_deepspeed

Linear = Callable[..., Tensor]


def round_once(own: Linear) -> None:
    """Give DeepSpeed's linear function, if it is installed, the forward pass of torch's ``own``."""
    load_deepspeed()
    from deepspeed.runtime.zero import linear

    # Neither name is documented; if one is gone, so may be the need for it.
    replacement = getattr(linear, "zero3_linear_wrap", None)
    base: Any = getattr(linear, "LinearFunctionForZeroStage3", None)
    if replacement is None or nn.functional.linear is not replacement or "setup_context" not in vars(base or object):
        return

    class RoundedOnce(base):  # type: ignore[misc]
        @staticmethod
        def forward(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return own(input, weight, bias)

    def gathering_again(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output: Tensor = RoundedOnce.apply(input, weight, bias)
        return output

    nn.functional.linear = gathering_again
