"""The transformer head sees what the trunk saw, and no more."""

from __future__ import annotations

import pytest
import torch

from aimcore import BIDIRECTIONAL, CAUSAL, Attention, Features
from aimcore.contracts.images import images_of
from aimcore_heads import TransformerHead


def _features(requires_grad: bool = False) -> Features:
    torch.manual_seed(0)
    images = images_of(torch.zeros(1, 3, 4, 6), 2)
    return Features(torch.randn(1, 6, 8, requires_grad=requires_grad), images.positions_BN2, images.valid_BN)


@pytest.mark.parametrize(
    ("attention", "seen"),
    [(BIDIRECTIONAL, 6), (CAUSAL, 3), (Attention(causal=True, prefix_length_B=torch.tensor([4])), 4)],
)
def test_a_prediction_depends_on_exactly_the_tokens_its_attention_allows(attention: Attention, seen: int) -> None:
    features = _features(requires_grad=True)
    head = TransformerHead(width=16, depth=2, num_heads=2).build(8, 5)
    head(features, attention, torch.tensor([2])).square().sum().backward()
    assert features.tokens_BND.grad is not None
    assert (features.tokens_BND.grad[0].abs().sum(-1) > 0).tolist() == [True] * seen + [False] * (6 - seen)


def test_predictions_come_only_where_asked_in_that_order() -> None:
    head = TransformerHead(width=16, depth=1, num_heads=2).build(8, 5)
    everywhere = head(_features(), CAUSAL, torch.arange(6))
    torch.testing.assert_close(head(_features(), CAUSAL, torch.tensor([4, 1])), everywhere[[4, 1]])


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width: must be a multiple of num_heads \(3\), got 16"):
        TransformerHead(width=16, num_heads=3)
