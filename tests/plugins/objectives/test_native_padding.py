"""Masked padding changes nothing and learns nothing; padding that is image is read and predicted like the rest."""

from __future__ import annotations

import attrs
import pytest
import torch
from core.engine.native_runs import objectives
from torch import Tensor

from aimcore import Batch, Images, Loss, Objective, PatchGrid, Reading
from aimcore.data.captions import Captions
from aimcore_heads import LinearHead, MLPHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Spiral
from aimcore_trunks import ViT

GRIDS = (PatchGrid(2, 4), PatchGrid(3, 3), PatchGrid(1, 9), PatchGrid(2, 2))
TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=2, mask_token=True)


def images_of(length: int, *, padding_is_image: bool = False) -> Images:
    """Four images in float64, padded with zeros up to ``length`` patches."""
    generator = torch.Generator().manual_seed(0)
    patches_BNF = torch.zeros(len(GRIDS), length, 12, dtype=torch.float64)
    for number, grid in enumerate(GRIDS):
        patches_BNF[number, : grid.num_patches] = torch.randn(
            grid.num_patches, 12, dtype=torch.float64, generator=generator
        )
    return Images(patches_BNF, GRIDS, 2, padding_is_image)


def batch_of(objective: Objective, images: Images) -> Batch:
    text = None if objective.text is None else Captions(*objective.text).encode(["a", "red shoe", "of", "two"])
    return Batch(
        images=images, sample_numbers_B=torch.arange(4) + 7, seed=1, text=text, labels_B=torch.tensor([0, 1, 2, 0])
    )


def losses_of(objective: Objective, images: Images) -> tuple[dict[str, Loss], dict[str, int]]:
    torch.manual_seed(0)
    module = objective.build(TRUNK.build()).double()
    batch = batch_of(objective, images)
    return module(batch), dict(module.counts(batch))


def sums(losses: dict[str, Loss]) -> dict[str, Tensor]:
    return {name: loss.sum.detach() for name, loss in losses.items()}


@pytest.mark.parametrize("name", objectives())
def test_losses_do_not_change_with_the_amount_of_masked_padding(name: str) -> None:
    (few, few_counts), (many, many_counts) = (losses_of(objectives()[name], images_of(length)) for length in (9, 30))
    assert few_counts == many_counts
    torch.testing.assert_close(sums(few), sums(many), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", objectives())
def test_no_gradient_reaches_masked_padding(name: str) -> None:
    images = images_of(12)
    patches_BNF = images.patches_BNF.requires_grad_()
    losses, _ = losses_of(objectives()[name], images)
    sum(loss.sum for loss in losses.values()).backward()  # type: ignore[union-attr]
    assert patches_BNF.grad is not None
    touched_BN = patches_BNF.grad.abs().sum(2) > 0
    assert not touched_BN[~images.valid_BN].any()
    assert touched_BN[images.valid_BN].float().mean() > 0.5


def test_tokens_do_not_change_with_the_amount_of_masked_padding() -> None:
    torch.manual_seed(0)
    module = TRUNK.build().float()
    few, many = (attrs.evolve(i, patches_BNF=i.patches_BNF.float()) for i in (images_of(9), images_of(40)))
    for reading in (Reading(), NextPatch(ordering=Spiral()).reading):
        one, other = (module(i, reading if isinstance(reading, Reading) else reading(i)) for i in (few, many))
        valid_BN = one.valid_BN
        assert valid_BN.sum() == 8 + 9 + 9 + 4
        assert (one.tokens_BND - other.tokens_BND[:, :9])[valid_BN].abs().max() < 1e-6


def test_padding_that_is_image_is_predicted_as_zeros_are() -> None:
    objective = NextPatch(head=MLPHead(width=16, depth=1), prefix=None)
    losses, counts = losses_of(objective, images_of(12, padding_is_image=True))
    per_position_BN = losses["next_patch"].per_position_BN
    assert counts == {"next_patch": 4 * 11}
    assert per_position_BN is not None
    assert not per_position_BN[:, 1:].isnan().any()


@pytest.mark.parametrize("padding_is_image", [True, False])
def test_what_stands_behind_an_image_is_seen_only_where_it_is_image(padding_is_image: bool) -> None:
    torch.manual_seed(0)
    module = TRUNK.build().double()
    images = images_of(12, padding_is_image=padding_is_image)
    other = attrs.evolve(images, patches_BNF=images.patches_BNF + ~images_of(12).valid_BN[..., None])
    change_BN = (module(images, Reading()).tokens_BND - module(other, Reading()).tokens_BND).abs().amax(2)
    own_BN = images_of(12).valid_BN
    assert bool((change_BN[own_BN] > 1e-9).all()) == bool((change_BN[own_BN] > 0).any()) == padding_is_image


def test_an_image_shorter_than_a_fixed_prefix_is_not_scored() -> None:
    _, counts = losses_of(NextPatch(head=LinearHead(), prefix=8), images_of(12))
    assert counts == {"next_patch": 0 + 1 + 1 + 0}
