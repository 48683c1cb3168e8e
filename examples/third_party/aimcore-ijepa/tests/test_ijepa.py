"""The contract of an objective; masks, loss and momentum computed by hand; what the causality check says."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from aimcore_ijepa import IJEPA, Blocks, IJEPAModule
from aimcore_ijepa.masks import block_size
from aimcore_ijepa.objective import distance, momentum_at

from aimcore import AimcoreError, Batch, PatchGrid, Reading, component
from aimcore.contracts.images import images_of
from aimcore.testing import Case, findings_of, parametrize_with_checks
from aimcore_trunks import ViT

TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=4)
SMALL = IJEPA.examples()[0]


@parametrize_with_checks(IJEPA.examples())
def test_it_conforms(component, check):
    check(component)


def images(number, rows=7, columns=7):
    generator = torch.Generator().manual_seed(0)
    return images_of(torch.randn(number, 3, 4 * rows, 4 * columns, generator=generator), patch_size=4)


def test_sizes_of_blocks():
    # 15 % of 14 x 14 patches are 29: sqrt(29 * 0.75) = 4.7 high, sqrt(29 / 0.75) = 6.2 wide. 20 % are 39: 7.6 by 5.1.
    height, width = block_size(np.array([14, 14]), np.array([14, 14]), np.array([0.15, 0.2]), np.array([0.75, 1.5]))
    assert (height.tolist(), width.tolist()) == ([5, 8], [6, 5])
    # A long image is not higher than it is: 20 % of 2 x 20 patches are 8, by 1.5 that is 3.5 by 2.3.
    height, width = block_size(np.array([2]), np.array([20]), np.array([0.2]), np.array([1.5]))
    assert (height.tolist(), width.tolist()) == ([2], [2])


def test_blocks_are_whole_rectangles_of_the_papers_sizes_and_never_in_the_context():
    masks = Blocks(min_context=8).draw(images(200), np.arange(200), seed=3)
    assert not (masks.context_BN & masks.target_BTN.any(1)).any()
    areas = set()
    for block_RC in masks.target_BTN.reshape(800, 7, 7):
        rows, columns = np.flatnonzero(block_RC.any(1)), np.flatnonzero(block_RC.any(0))
        assert (
            block_RC.sum() == len(rows) * len(columns) == np.ptp(rows) * np.ptp(columns) + len(rows) + len(columns) - 1
        )
        areas.add(int(block_RC.sum()))
    # 7 or 8 or 9 of 49 patches: 2 or 3 or 4 by 2 or 3.
    assert areas <= {4, 6, 8, 9, 12}
    assert {6, 9, 12} <= areas


def test_blocks_reach_every_edge():
    target_RC = Blocks(min_context=8).draw(images(200), np.arange(200), seed=0).target_BTN.any((0, 1)).reshape(7, 7)
    assert target_RC.all()


def test_blocks_belong_to_the_sample_and_the_seed():
    blocks = Blocks(min_context=8)
    all_of_them = blocks.draw(images(10), np.arange(10), seed=0)
    two = blocks.draw(images(2), np.array([7, 3]), seed=0)
    assert (two.target_BTN == all_of_them.target_BTN[[7, 3]]).all()
    assert (two.context_BN == all_of_them.context_BN[[7, 3]]).all()
    assert (blocks.draw(images(10), np.arange(10), seed=1).target_BTN != all_of_them.target_BTN).any()


def test_where_no_attempt_leaves_a_context_all_blocks_are_the_first_one():
    crowded = Blocks(num_targets=40, min_context=24)
    assert tuple(crowded.problems_with(PatchGrid(7, 7))) == ()
    masks = crowded.draw(images(20), np.arange(20), seed=0)
    assert (masks.context_BN.sum(1) >= 24).all()
    assert (masks.target_BTN == masks.target_BTN[:, :1]).all()


def test_a_grid_on_which_no_context_would_be_left_is_refused():
    (problem,) = Blocks().problems_with(PatchGrid(3, 4))
    assert problem.startswith("target blocks may leave only 5 of 12 patches in the context, and min_context is 10:")


def test_the_teachers_momentum_rises_linearly_from_0996_to_1():
    assert momentum_at(1, 1000, 0.996) == 0.996
    assert momentum_at(501, 1000, 0.996) == 0.998
    assert 0.99999 < momentum_at(1000, 1000, 0.996) < 1


def test_an_update_moves_the_teacher_by_its_momentum():
    module = SMALL.build(TRUNK.build())
    weight, kept = module.trunk.norm.weight, module.teacher.norm.weight
    with torch.no_grad():
        weight.fill_(3.0)
    module.after_step(501, 1000)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.998 * 1 + 0.002 * 3))
    assert not any(name.startswith("teacher") for name, _ in module.named_parameters())


def test_the_loss_is_the_mean_square_or_its_smooth_variant():
    predicted_BND, wanted_BND = torch.tensor([[[3.0, 0.5]]]), torch.zeros(1, 1, 2)
    assert distance(predicted_BND, wanted_BND, "l2").item() == (9 + 0.25) / 2
    assert distance(predicted_BND, wanted_BND, "smooth_l1").item() == ((3 - 0.5) + 0.5 * 0.25) / 2


def test_each_block_is_predicted_from_the_tokens_of_the_context_alone():
    batch = Batch(images(1), torch.tensor([9]), seed=1)
    module = SMALL.build(TRUNK.build())
    loss, masks = module(batch)["i_jepa"], module.masks(batch)
    # The third block of the one image, without any filling up.
    context_1K = torch.from_numpy(masks.context_BN[0].nonzero()[0])[None]
    target_1L = torch.from_numpy(masks.target_BTN[0, 2].nonzero()[0])[None]
    read = module.trunk(batch.images, Reading(order_BN=context_1K))
    assert read.tokens_BND.shape == (1, masks.context_BN.sum(), 16)
    positions_1L2 = batch.images.positions_BN2[:, target_1L[0]]
    valid = torch.ones_like(context_1K, dtype=torch.bool), torch.ones_like(target_1L, dtype=torch.bool)
    predicted_1LD = module.predictor(read.tokens_BND, read.positions_BN2, valid[0], positions_1L2, valid[1])
    wanted_1LD = module.teacher(batch.images, Reading()).tokens_BND[:, target_1L[0]]
    mean, variance = wanted_1LD.mean(-1, keepdim=True), wanted_1LD.var(-1, unbiased=False, keepdim=True)
    expected_L = (predicted_1LD - (wanted_1LD - mean) / (variance + 1e-5).sqrt()).square().mean(-1)[0]
    longest, number = int(masks.target_BTN.sum(2).max()), target_1L.shape[1]
    scored = slice(2 * longest, 2 * longest + number)
    torch.testing.assert_close(loss.per_position_BN[0, scored], expected_L)
    assert loss.scored_patch_BN[0, scored].tolist() == target_1L[0].tolist()
    assert loss.per_position_BN[0, 2 * longest + number : 3 * longest].isnan().all()
    assert loss.num_targets == masks.target_BTN.sum() == (~loss.per_position_BN.isnan()).sum()


class SeeingModule(IJEPAModule):
    def masks(self, batch):
        masks = super().masks(batch)
        return masks._replace(context_BN=np.ones_like(masks.context_BN))


@component("seeing")
class Seeing(IJEPA):
    """The mistake to make: the context encoder reads the whole image."""

    def build(self, trunk):
        return SeeingModule(self, trunk)


def test_the_causality_check_passes_it_and_finds_a_context_encoder_that_sees_its_targets():
    assert findings_of(Case("i-jepa", TRUNK, SMALL, PatchGrid(3, 4))) == []
    seeing = Seeing.examples()[0]
    found = findings_of(Case("seeing", TRUNK, seeing, PatchGrid(3, 4)))
    assert any("reads its own target" in text for text in found)


def test_the_study_offers_two_scales():
    study = runpy.run_path(Path(__file__).parents[1] / "study.py")["study"]
    for scale in ("smoke", "small"):
        assert [experiment.name for experiment in study(scale).experiments] == ["i-jepa"]
    with pytest.raises(AimcoreError, match="there is no scale 'paper': choose from smoke, small"):
        study("paper")
