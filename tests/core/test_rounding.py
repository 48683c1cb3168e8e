"""Under autocast, tokens that several linear layers read are rounded once, without an effect on the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aimcore.modeling.attention import Mask
from aimcore.modeling.layers import FeedForward, SelfAttention, rounded_for_products
from aimcore_decoders.cross_attention import CrossAttention

WIDTH = 16
READERS: dict[str, Callable[[], tuple[nn.Module, Callable[[nn.Module, Tensor], Any]]]] = {
    "self-attention": lambda: (SelfAttention(WIDTH, 2, bias=False), lambda layer, tokens: layer(tokens, Mask())),
    "SwiGLU": lambda: (FeedForward(WIDTH, 24, kind="swiglu", bias=False), lambda layer, tokens: layer(tokens)),
    "cross-attention": lambda: (CrossAttention(WIDTH, 2), lambda layer, tokens: layer.look(tokens)[0]),
}


class Conversions(TorchDispatchMode):
    """Counts the float32 tokens that are rounded; weights have two axes."""

    number = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].dim() == 3 and args[0].dtype == torch.float32:
            self.number += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", list(READERS))
def test_tokens_are_rounded_once(name: str):
    layer, read = READERS[name]()
    with torch.autocast("cpu", torch.bfloat16), Conversions() as conversions:
        read(layer, torch.randn(2, 3, WIDTH))
    assert conversions.number == 1


@pytest.mark.parametrize("name", list(READERS))
def test_outputs_are_those_of_layers_that_round_for_themselves(name: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    layer, read = READERS[name]()
    tokens_BND = torch.randn(2, 3, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        found = read(layer, tokens_BND)
    for module in ("aimcore.modeling.layers", "aimcore_decoders.cross_attention"):
        monkeypatch.setattr(f"{module}.rounded_for_products", lambda tokens: tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read(layer, tokens_BND), found)


def test_other_types_and_tokens_outside_autocast_stay_as_they_are():
    tokens_BND = torch.randn(2, 3, WIDTH)
    assert rounded_for_products(tokens_BND) is tokens_BND
    with torch.autocast("cpu", torch.bfloat16):
        assert rounded_for_products(tokens_BND.double()).dtype == torch.float64
