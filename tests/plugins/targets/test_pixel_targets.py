"""Pixel targets by hand and against the training code's losses."""

from __future__ import annotations

import pytest
import torch
from golden_files import assert_golden, tensors
from torch import Tensor

from aimcore import Batch, Images, PatchGrid, Target
from aimcore.contracts.images import images_of
from aimcore_targets import NormalizedPixels, Pixels


def _batch(patches_BNF: Tensor) -> Batch:
    images = Images(patches_BNF=patches_BNF, grids=(PatchGrid(1, patches_BNF.shape[1]),), patch_size=1)
    return Batch(images=images, sample_numbers_B=torch.arange(1))


def test_a_patch_is_normalised_by_its_mean_and_unbiased_variance() -> None:
    # Mean 2, unbiased variance (1 + 0 + 1) / 2 = 1.
    values = NormalizedPixels().values(_batch(torch.tensor([[[1.0, 2.0, 3.0]]])))
    torch.testing.assert_close(values, torch.tensor([[[-1.0, 0.0, 1.0]]]) / (1 + 1e-6) ** 0.5)


def test_a_flat_patch_normalises_to_zero() -> None:
    assert NormalizedPixels().values(_batch(torch.full((1, 1, 12), 0.3))).abs().max() < 1e-3


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=lambda target: target.name)
def test_the_loss_is_the_mean_squared_error_over_a_patchs_values(target: Target) -> None:
    losses_M = target.loss(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, 3.0]]))
    assert losses_M.tolist() == [2.0, 5.0]


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=lambda target: target.name)
def test_drawing_the_true_values_gives_the_image_back(target: Target) -> None:
    batch = _batch(torch.rand(1, 4, 12))
    drawn_BNF = target.to_patches(target.values(batch), batch.images.patches_BNF)
    torch.testing.assert_close(drawn_BNF, batch.images.patches_BNF)


@pytest.mark.parametrize("with_prefix", [0, 1])
@pytest.mark.parametrize(("normalised", "target"), [(0, Pixels()), (1, NormalizedPixels())])
def test_the_training_codes_losses_are_reproduced(normalised: int, target: Target, with_prefix: int) -> None:
    golden = tensors("next_patch_loss.io")
    images = images_of(golden["pixels"], 14)
    values_BNF = target.values(Batch(images=images, sample_numbers_B=torch.arange(3)))
    # The output at t - 1 predicts patch t; only patches at or behind the prefix length count.
    first_B = golden["prefix_length"] if with_prefix else torch.ones(3)
    scored = torch.arange(16) >= first_B[:, None]
    losses_M = target.loss(golden["predictions"].roll(1, dims=1)[scored], values_BNF[scored])
    assert_golden(losses_M.sum() / len(losses_M), golden[f"loss_norm{normalised}_prefix{with_prefix}"])
