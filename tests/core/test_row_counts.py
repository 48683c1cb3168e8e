"""Numbers of rows in products: few different ones, and the same predictions, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aimcore import BIDIRECTIONAL, Features
from aimcore.contracts.images import images_of
from aimcore.modeling.chunked_outputs import losses_in_chunks
from aimcore.modeling.row_counts import in_rounded_rows, rounded_up, with_repeated_last
from aimcore_heads import MLPHead

WIDTH, OUTPUTS = 8, 5


def test_numbers_are_rounded_up_by_at_most_a_sixteenth_or_64() -> None:
    rounded = [rounded_up(number) for number in range(20_000)]
    assert rounded[:65] == list(range(65))  # small numbers are exact
    assert all(number <= up <= number + max(64, number // 16) for number, up in enumerate(rounded))
    assert len({*rounded[1024:2048]}) == 17
    assert rounded == sorted(rounded)


def test_the_last_position_is_repeated() -> None:
    where_M = torch.arange(70) + 3
    assert with_repeated_last(where_M).tolist() == [*range(3, 73), *[72] * 58]
    assert with_repeated_last(where_M[:0]).tolist() == []


def test_a_layer_computes_a_rounded_number_of_rows() -> None:
    layer, tokens_MD, seen = nn.Linear(WIDTH, OUTPUTS), torch.randn(70, WIDTH), []
    layer.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    outputs_MK = in_rounded_rows(layer, tokens_MD)
    torch.testing.assert_close(outputs_MK, layer(tokens_MD))
    losses_in_chunks(layer, tokens_MD, OUTPUTS, lambda outputs_mK, _: outputs_mK.sum(1))
    assert seen == [128, 70, 128]


@pytest.mark.parametrize("num_scored", [0, 64, 70])
def test_the_mlp_head_predicts_and_learns_as_with_the_scored_rows_alone(num_scored: int) -> None:
    torch.manual_seed(0)
    module = MLPHead(width=16, depth=2).build(WIDTH, OUTPUTS).double()
    images = images_of(torch.zeros(3, 3, 6, 6), 1)
    where_M = torch.randperm(108)[:num_scored]

    def run(positions_M: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        tokens_BND = torch.arange(864.0, dtype=torch.float64).sin().reshape(3, 36, WIDTH).requires_grad_()
        features = Features(tokens_BND, images.positions_BN2, images.valid_BN)
        predictions_MK = module(features, BIDIRECTIONAL, positions_M)
        gradients = torch.autograd.grad(predictions_MK.square().sum(), [tokens_BND, *module.parameters()])
        return predictions_MK, list(gradients)

    together, gradients = run(where_M)
    # In parts of at most 64 rows, whose number is exact.
    parts = [run(part) for part in where_M.split(50)]
    assert together.shape == (num_scored, OUTPUTS)
    torch.testing.assert_close(together, torch.cat([predictions for predictions, _ in parts]))
    sums = [torch.stack(of_parts).sum(0) for of_parts in zip(*(each for _, each in parts), strict=True)]  # type: ignore[arg-type]
    torch.testing.assert_close(gradients, sums)
