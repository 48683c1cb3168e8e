"""The contract of a trunk, the grid of its tokens, and which objectives can train it."""

import runpy
from pathlib import Path

import pytest
import torch
from aimcore_convnet import ConvNet

from aimcore import AimcoreError, Data, Experiment, InvalidValue, PatchGrid, Reading
from aimcore.contracts.images import images_of
from aimcore.testing import parametrize_with_checks
from aimcore_heads import LinearHead
from aimcore_objectives import Contrastive, NextPatch
from aimcore_sources import BundledEmoji

TRUNK = ConvNet(width=16)


@parametrize_with_checks([TRUNK])
def test_it_conforms(component, check):
    check(component)


def test_each_token_stands_for_four_patches():
    features = TRUNK.build()(images_of(torch.rand(2, 3, 16, 24), patch_size=4), Reading(layers=(1, 0)))
    assert features.tokens_BND.shape == (2, 2 * 3, 16)
    assert features.positions_BN2[1].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert TRUNK.output_grid(PatchGrid(4, 6)) == PatchGrid(2, 3)
    assert list(TRUNK.problems_with(PatchGrid(4, 6))) == []
    assert "3 x 6 cannot be halved" in next(iter(TRUNK.problems_with(PatchGrid(3, 6))))


@torch.no_grad()
def test_a_token_is_the_merged_patch_where_convolutions_do_nothing():
    """With the last linear map of each block at zero, blocks are the identity; tokens are computed by hand."""
    trunk = TRUNK.build().double()
    for name, weight in trunk.named_parameters():
        if ".fc2." in name:
            weight.zero_()
    images = images_of(torch.rand(1, 3, 16, 16, dtype=torch.float64), patch_size=4)
    corner_CHW = images.pixels_BCHW[0, :, 8:, :8]  # token (1, 0): the lower left 2 x 2 patches of 4 px
    merged_D = trunk.merge.bias.clone()
    for row in range(2):
        for column in range(2):
            patch_CHW = corner_CHW[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            embedded_D = torch.einsum("dchw,chw->d", trunk.stem.weight, patch_CHW) + trunk.stem.bias
            normed_D = trunk.merge_norm(trunk.stem_norm(embedded_D))
            merged_D += trunk.merge.weight[:, :, row, column] @ normed_D
    tokens_BND = trunk(images, Reading()).tokens_BND
    torch.testing.assert_close(tokens_BND[0, 2], trunk.norm(merged_D))


def experiment(objective):
    data = Data(train=BundledEmoji(), validation=BundledEmoji(split="test"), batch_size=4, image_size=16)
    return Experiment(name="one", data=data, trunk=TRUNK, objective=objective, num_steps=1)


def test_objectives_that_pool_tokens_accept_it_and_those_that_score_patches_refuse_it():
    assert experiment(Contrastive.examples()[0]).trunk == TRUNK
    with pytest.raises(InvalidValue, match="'convnet' makes 2 x 2 tokens of 4 x 4 patches, and objective"):
        experiment(NextPatch(head=LinearHead(), prefix=None))


def test_the_study_offers_two_scales():
    study = runpy.run_path(Path(__file__).parents[1] / "study.py")["study"]
    for scale in ("smoke", "small"):
        assert [experiment.name for experiment in study(scale).experiments] == ["convnet", "vit"]
    with pytest.raises(AimcoreError, match="there is no scale 'paper': choose from smoke, small"):
        study("paper")
