"""The MLP head against the training code's outputs, and the paper's form by hand."""

from __future__ import annotations

import torch
from golden_files import assert_golden, tensors
from torch import Tensor

from aimcore import BIDIRECTIONAL, Features, PatchGrid
from aimcore.contracts.images import images_of
from aimcore.modeling.positions import sincos_positions
from aimcore_heads import LinearHead, MLPHead
from aimcore_heads.mlp import MLPHeadModule

NAMES = {
    "decoder_projection": "project", "decoder_norm": "norm", "decoder_pred": "out",
    "decoder_blocks": "blocks", ".mlp.": ".ffn.",
}  # fmt: skip


def _features(tokens_BND: Tensor) -> Features:
    images = images_of(torch.zeros(len(tokens_BND), 3, 56, 56), 14)
    return Features(tokens_BND, images.positions_BN2, images.valid_BN)


def _everywhere(tokens_BND: Tensor) -> Tensor:
    return torch.arange(tokens_BND.shape[0] * tokens_BND.shape[1])


def _loaded() -> MLPHeadModule:
    state = {}
    for key, value in tensors("mlp_head.weights").items():
        if key != "decoder_pos_embed":  # fixed positions, computed here
            for theirs, ours in NAMES.items():
                key = key.replace(theirs, ours)
            state[key] = value
    head = MLPHead.as_in_training_code(width=32, depth=3).build(64, 588)
    head.load_state_dict(state)
    return head


@torch.no_grad()
def test_the_training_codes_form_reproduces_its_predictions() -> None:
    golden = tensors("mlp_head.io")
    where_M = _everywhere(golden["features"])
    predictions_MK = _loaded()(_features(golden["features"]), BIDIRECTIONAL, where_M)
    assert_golden(predictions_MK, golden["predictions"].flatten(0, 1))


@torch.no_grad()
def test_only_the_positions_asked_for_are_computed_and_they_are_the_same() -> None:
    golden = tensors("mlp_head.io")
    where_M = torch.tensor([3, 17, 40])
    predictions_MK = _loaded()(_features(golden["features"]), BIDIRECTIONAL, where_M)
    assert_golden(predictions_MK, golden["predictions"].flatten(0, 1)[where_M])


def test_the_fixed_positions_are_those_of_the_training_code() -> None:
    positions_BN2 = _features(torch.zeros(1, 16, 4)).positions_BN2
    assert_golden(sincos_positions(positions_BN2, 32), tensors("mlp_head.weights")["decoder_pos_embed"])
    assert PatchGrid(4, 4).num_patches == positions_BN2.shape[1]


@torch.no_grad()
def test_the_papers_form_has_no_bias_and_adds_positions_before_the_projection() -> None:
    head = MLPHead(width=8, depth=1).build(4, 5)
    tokens_BND = torch.randn(1, 16, 4)
    assert [name for name, _ in head.named_parameters() if name.endswith("bias")] == [
        "blocks.0.norm_2.bias", "norm.bias",
    ]  # fmt: skip
    features = _features(tokens_BND)
    projected = head.project(tokens_BND + sincos_positions(features.positions_BN2, 4))
    block = head.blocks[0]
    hidden = projected + block.ffn(block.norm_2(projected))
    expected_MK = head.out(head.norm(hidden)).flatten(0, 1)
    torch.testing.assert_close(head(features, BIDIRECTIONAL, _everywhere(tokens_BND)), expected_MK)


@torch.no_grad()
def test_the_linear_head_is_one_matrix_product() -> None:
    head = LinearHead().build(4, 5)
    tokens_BND = torch.randn(2, 16, 4)
    predictions_MK = head(_features(tokens_BND), BIDIRECTIONAL, torch.tensor([0, 31]))
    weight = next(head.parameters())
    torch.testing.assert_close(predictions_MK, tokens_BND.flatten(0, 1)[[0, 31]] @ weight.T)
