"""Masked image modelling: what is masked, what is scored, and that no masked pixel is read."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from core.testing.mutants.masking import LeakingToken
from scipy import stats
from torch import Tensor

from aimcore import Batch, Data, Experiment, Images, InvalidValue, PatchGrid, Reading, component
from aimcore.contracts.batches import View
from aimcore.contracts.images import images_of
from aimcore.testing import Case, findings_of
from aimcore.testing.runner import verdict_of
from aimcore_heads import LinearHead, TransformerHead
from aimcore_objectives import MaskedPatch, NextPatch
from aimcore_objectives.masked_patch import MaskedPatchModule
from aimcore_objectives.masks import block_masks, num_masked, random_masks
from aimcore_sources import BundledFashionMNIST
from aimcore_targets import Pixels
from aimcore_trunks import ViT

TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=2, mask_token=True)
RANDOM = MaskedPatch(head=LinearHead(), target=Pixels(), ratio=0.75)
OBJECTIVES = (RANDOM, attrs.evolve(RANDOM, ratio=0.5, mask="blocks"))


def module_of(objective: MaskedPatch) -> MaskedPatchModule:
    torch.manual_seed(0)
    module = objective.build(TRUNK.build())
    torch.nn.init.normal_(module.head.out.weight)  # so that every prediction depends on its token
    return module


def batch_of(number: int = 4, seed: int = 0, side: int = 8) -> Batch:
    pixels = torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(0))
    return Batch(images=images_of(pixels, 2), sample_numbers_B=torch.arange(number), seed=seed)


def blank(*grids: tuple[int, int], length: int | None = None) -> Images:
    longest = length or max(rows * columns for rows, columns in grids)
    return Images(torch.zeros(len(grids), longest, 1), tuple(PatchGrid(*grid) for grid in grids), 1)


@pytest.mark.parametrize(("ratio", "number"), [(0.5, 128), (0.75, 192), (0.01, 3), (0.99, 253)])
def test_the_ratio_is_rounded_to_whole_patches(ratio: float, number: int) -> None:
    assert num_masked(blank((16, 16)), ratio).tolist() == [number]


def test_something_is_masked_and_something_is_left() -> None:
    assert num_masked(blank((1, 2), (2, 2), (1, 1)), 0.01).tolist() == [1, 1, 0]
    assert num_masked(blank((1, 2), (2, 2), (1, 1)), 0.99).tolist() == [1, 3, 0]


@pytest.mark.parametrize("draw", [random_masks, block_masks])
@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_each_image_has_the_exact_number_of_masked_patches_and_padding_has_none(draw, ratio: float) -> None:
    images = blank(*[(3, 4), (2, 2), (5, 1), (7, 7)] * 50)
    masked_BN = draw(images, ratio, np.arange(200), 3)
    assert masked_BN.sum(1).tolist() == num_masked(images, ratio).tolist()
    assert not (masked_BN & ~images.valid_BN.numpy()).any()


@pytest.mark.parametrize("draw", [random_masks, block_masks])
def test_a_mask_depends_on_seed_and_sample_number_alone(draw) -> None:
    together = draw(blank(*[(4, 4)] * 20), 0.5, np.arange(20), 7)
    for number in (0, 13):
        alone = draw(blank((4, 4), length=30), 0.5, np.array([number]), 7)  # also with padding after it
        assert np.array_equal(alone[0, :16], together[number])
    assert len({mask.tobytes() for mask in together}) > 15
    assert not np.array_equal(together, draw(blank(*[(4, 4)] * 20), 0.5, np.arange(20), 8))


def test_random_masks_are_uniform() -> None:
    masked_BN = random_masks(blank(*[(3, 3)] * 4000), 1 / 3, np.arange(4000), 0)
    # Four standard deviations of a binomial with probability 1/3.
    assert (abs(masked_BN.sum(0) - 4000 / 3) < 4 * np.sqrt(4000 * 2 / 9)).all()
    # Of all 84 sets of three, each is equally likely.
    sets = np.unique(masked_BN, axis=0, return_counts=True)[1]
    assert len(sets) == 84
    assert stats.chisquare(sets).pvalue > 1e-4


def neighbours(masked_BN: np.ndarray, side: int) -> float:
    """Share of masked patches among the right neighbours of masked patches."""
    masked_BRC = masked_BN.reshape(-1, side, side)
    return float(masked_BRC[:, :, 1:][masked_BRC[:, :, :-1]].mean())


def test_block_masks_hold_together() -> None:
    images, numbers = blank(*[(14, 14)] * 200), np.arange(200)
    assert abs(neighbours(random_masks(images, 0.4, numbers, 0), 14) - 0.4) < 0.02
    assert neighbours(block_masks(images, 0.4, numbers, 0), 14) > 0.75


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_that_of_the_masked_patches(objective: MaskedPatch) -> None:
    module, batch = module_of(objective), batch_of()
    loss = module(batch)["masked_patch"]
    masked_BN = torch.from_numpy(module.masks(batch))
    assert module.counts(batch) == {"masked_patch": int(loss.num_targets)} == {"masked_patch": int(masked_BN.sum())}
    features = module.trunk(batch.images, Reading(masked_BN=masked_BN))
    error_BN = (module.head.out(features.tokens_BND) - batch.images.patches_BNF).square().mean(-1)
    torch.testing.assert_close(loss.sum, error_BN[masked_BN].sum())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("head", [LinearHead(), TransformerHead(width=16, depth=1, num_heads=2)])
def test_no_masked_pixel_reaches_the_encoder(objective: MaskedPatch, head) -> None:
    module, batch = module_of(attrs.evolve(objective, head=LinearHead())), batch_of()
    module.head = head.build(16, 12)
    masked_BN = torch.from_numpy(module.masks(batch))
    patches_BNF = batch.images.patches_BNF.clone().requires_grad_()
    read = attrs.evolve(batch, images=attrs.evolve(batch.images, patches_BNF=patches_BNF))
    predictions_MK, _ = module._predict(read)
    predictions_MK.square().sum().backward()
    assert patches_BNF.grad is not None
    assert not patches_BNF.grad[masked_BN].any()
    assert patches_BNF.grad[~masked_BN].any(-1).all()
    patches_BNF.data[masked_BN] = torch.nan
    torch.testing.assert_close(module._predict(read)[0], predictions_MK, rtol=0, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_causality_check_calls_it_causal_and_names_a_mask_with_a_gap(objective: MaskedPatch) -> None:
    case = Case("masked", attrs.evolve(TRUNK, patch_size=4), objective, PatchGrid(3, 4))
    assert verdict_of(case)[0] == "causal"
    leaking = attrs.evolve(case, objective=LeakingToken())
    assert any("reads its own target" in text for text in findings_of(leaking))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_validation_masks_are_fixed_and_training_masks_are_not(objective: MaskedPatch) -> None:
    module = module_of(objective)
    one, other = batch_of(seed=1), batch_of(seed=2)
    assert not np.array_equal(module.masks(one), module.masks(other))
    module.eval()
    assert np.array_equal(module.masks(one), module.masks(other))


def test_pictures_show_the_masked_patches() -> None:
    module, batch = module_of(RANDOM).eval(), batch_of()
    shown = module.predicted_patches(batch)
    assert np.array_equal(shown.predicted_BN.numpy(), module.masks(batch))
    error_BN = (shown.patches_BNF - batch.images.patches_BNF).square().mean(-1)
    torch.testing.assert_close(error_BN[shown.predicted_BN].sum(), module(batch)["masked_patch"].sum)


@component("parity")
class Parity(Pixels):
    """Codes: whether the view of a patch is bright."""

    @property
    def views(self) -> tuple[View, ...]:
        return (View("small", pixels_per_patch=1),)

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 2

    def values(self, batch: Batch) -> Tensor:
        return (batch.views["small"].mean(1).flatten(1) > 0.5).long()

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(predictions_MK, values_M, reduction="none")


def test_codes_can_be_predicted_and_their_views_are_requested() -> None:
    objective = attrs.evolve(RANDOM, target=Parity())
    assert objective.views == NextPatch(target=Parity()).views == (View("small", pixels_per_patch=1),)
    module, batch = objective.build(TRUNK.build()), batch_of()
    batch = attrs.evolve(batch, views={"small": torch.rand(4, 3, 4, 4)})
    loss = module(batch)["masked_patch"]
    assert int(loss.num_targets) == 4 * 12
    assert 0 < loss.sum.item() / 48 < 10


def test_a_trunk_without_a_mask_token_is_refused_with_what_to_set() -> None:
    source = BundledFashionMNIST()
    data = Data(train=source, validation=source, batch_size=4, image_size=8)
    trunk = attrs.evolve(TRUNK, mask_token=False)
    with pytest.raises(InvalidValue, match=r"trunk that can 'mask'.*set trunk.mask_token=True"):
        Experiment(name="masked", data=data, trunk=trunk, objective=RANDOM, num_steps=1)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio: float) -> None:
    with pytest.raises(InvalidValue, match="ratio"):
        MaskedPatch(ratio=ratio)


def test_images_of_one_patch_are_refused() -> None:
    assert list(RANDOM.problems_with(PatchGrid(1, 1))) == ["an image of a single patch has nothing to predict it from"]
