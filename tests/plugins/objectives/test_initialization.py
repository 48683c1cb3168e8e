"""What models begin with: the released training code's draws, and the losses that follow from them by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from aimcore.modeling.layers import init_output
from aimcore.testing.fixtures import batch_for, random_images
from aimcore.testing.requirements import seeded
from aimcore_decoders import CrossAttentionDecoder, JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives import Contrastive, Multimodal
from aimcore_trunks import ViT


def spread(weight: Tensor) -> float:
    """Standard deviation around zero."""
    return float(weight.detach().double().square().mean().sqrt())


def tolerance(weight: Tensor, sigmas: float = 5.0) -> float:
    """Relative error of :func:`spread`, at most, for numbers whose squares vary no more than those of a normal one."""
    return sigmas / math.sqrt(2 * weight.numel())


def test_aimv2s_heads_have_the_published_standard_deviation() -> None:
    with seeded():
        head = nn.Linear(1024, 588, bias=False)
        init_output(head, 12)
    # Measured on the released training code: 0.00867; 1 / sqrt(1024 * 13) = 0.0086672.
    assert spread(head.weight) == pytest.approx(0.0086672, rel=tolerance(head.weight))
    # Truncated at two standard deviations of the normal distribution that was cut.
    assert 0.98 < float(head.weight.detach().abs().max()) * 0.879626 / (2 * 0.0086672) <= 1.00001


def test_decoders_shrink_their_heads_by_depth_and_leave_the_projection_to_torch() -> None:
    with seeded():
        joint = JointDecoder(width=64, depth=3, num_heads=2).build(48, 588, 500, 6)
        cross = CrossAttentionDecoder(width=64, depth=3, num_heads=2).build(48, 0, 500, 6)
    for head in (joint.to_patches, joint.to_tokens, cross.to_tokens):
        assert isinstance(head, nn.Linear)
        assert spread(head.weight) == pytest.approx((64 * 4) ** -0.5, rel=tolerance(head.weight))
    for decoder in (joint, cross):
        # torch: weight and bias are uniform within 1 / sqrt(48); Xavier would reach sqrt(6 / 112), and a bias of zero.
        bound = 48**-0.5
        assert spread(decoder.project.weight) == pytest.approx(bound / 3**0.5, rel=tolerance(decoder.project.weight))
        assert 0.8 * bound < float(decoder.project.bias.detach().abs().max()) <= bound
        # Blocks stay Xavier-uniform: sqrt(2 / (64 + 64)).
        query = decoder.blocks[0].attention.query.weight
        assert spread(query) == pytest.approx(0.125, rel=tolerance(query))


def test_the_patch_embedding_is_xavier_with_the_bias_of_a_torch_convolution() -> None:
    with seeded():
        linear = ViT(width=128, depth=1, num_heads=2).build().patch_embedding.linear  # type: ignore[attr-defined]
    assert linear.weight.shape == (128, 588)
    assert spread(linear.weight) == pytest.approx(math.sqrt(2 / (128 + 588)), rel=tolerance(linear.weight))
    assert 0.9 * 0.0412 < float(linear.bias.detach().abs().max()) <= 588**-0.5 < 0.0413


def test_aims_head_stays_xavier_without_biases() -> None:
    with seeded():
        head = MLPHead.as_in_training_code(width=64, depth=3).build(48, 588)
    # The training code draws the output by depth first, and Xavier's draw of all linear layers then replaces it.
    assert spread(head.out.weight) == pytest.approx(math.sqrt(2 / (64 + 588)), rel=tolerance(head.out.weight))
    assert float(head.out.bias.detach().abs().max()) == float(head.project.bias.detach().abs().max()) == 0


def test_the_projections_of_clip_begin_as_torch_begins_them() -> None:
    objective = Contrastive.examples()[0]
    with seeded():
        module = objective.build(ViT(width=64, depth=1, num_heads=2, patch_size=4).build())
    for tower, width in ((module.image_tower, 64), (module.text_tower, 16)):
        weight = tower.project.weight
        assert spread(weight) == pytest.approx((3 * width) ** -0.5, rel=tolerance(weight))


def test_the_first_image_loss_is_one_and_the_variance_of_the_outputs() -> None:
    depth, outputs = 3, 588
    objective = Multimodal(decoder=JointDecoder(width=512, depth=depth, num_heads=2), context_length=6)
    batch = batch_for(objective, random_images(patch_size=14))
    with seeded():
        module = objective.build(ViT(width=32, depth=1, num_heads=2).build()).eval()
    with torch.no_grad():
        loss = module(batch)["image"]
    # A normalised token has 512 values of mean square 1, so each of its outputs has variance 512 / (512 * (1 + depth)).
    # Targets have mean square 587 / 588 and do not depend on the outputs. Even if all tokens were alike, the mean of
    # 588 squares would be within 5 * sqrt(2 / 588) of its expectation, relatively, and twice the mean product of
    # outputs and targets within 10 * sqrt(variance / 588) of zero. For 12 blocks the same sum gives 1.075;
    # Xavier's variance here would be 2 * 512 / (512 + 588) = 0.93 instead of 0.25.
    variance = 1 / (1 + depth)
    slack = 5 * variance * math.sqrt(2 / outputs) + 10 * math.sqrt(variance / outputs)
    assert slack < 0.3
    assert float(loss.sum / loss.num_targets) == pytest.approx(587 / 588 + variance, abs=slack)
