"""Predicted patches as pictures: the same predictions that the loss is taken of."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from aimcore import Batch, Data, Decoder, Experiment, Images, ObjectiveModule, Target
from aimcore.contracts.images import images_of
from aimcore.report.sample_making import compute_samples
from aimcore.testing.fixtures import with_changed_patch
from aimcore_decoders import JointDecoder, SeparateDecoder
from aimcore_heads import LinearHead
from aimcore_objectives import Multimodal, NextPatch
from aimcore_objectives.steps import Prefix
from aimcore_orderings import Raster, Reversed
from aimcore_sources import BundledEmoji
from aimcore_targets import NormalizedPixels, Pixels
from aimcore_tokenizers import Bytes
from aimcore_trunks import ViT

SMALL = {"width": 16, "depth": 1, "num_heads": 2}
DECODERS = (JointDecoder(**SMALL), SeparateDecoder(**SMALL))


def multimodal(decoder: Decoder = DECODERS[0], prefix: Prefix = 3, **changes: Any) -> Multimodal:
    return Multimodal(ordering=Reversed(), decoder=decoder, context_length=6, prefix=prefix, **changes)


def module_of(objective: NextPatch | Multimodal) -> ObjectiveModule:
    torch.manual_seed(0)
    return objective.build(ViT(width=16, depth=1, num_heads=2, patch_size=2).build()).eval()


def batch_of(num_images: int = 3) -> Batch:
    pixels = torch.rand(num_images, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    text = Bytes().encode(["a red shoe", "bag", "it"][:num_images], 6)
    return Batch(images=images_of(pixels, 2), sample_numbers_B=torch.arange(num_images), text=text)


def normalized(patches: Tensor, like: Tensor) -> Tensor:
    return (patches - like.mean(-1, keepdim=True)) / (like.var(-1, keepdim=True) + 1e-6).sqrt()


def objectives(target: Target) -> list[NextPatch | Multimodal]:
    next_patch = NextPatch(ordering=Reversed(), head=LinearHead(), target=target, prefix=3)
    return [next_patch, *(multimodal(decoder, target=target) for decoder in DECODERS)]


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()])
@pytest.mark.parametrize("index", range(3), ids=["next_patch", "joint", "separate"])
def test_the_error_of_the_pictures_is_the_loss(target: Target, index: int) -> None:
    objective = objectives(target)[index]
    module, batch = module_of(objective), batch_of()
    shown, truth = module.predicted_patches(batch), batch.images.patches_BNF
    assert shown.patches_BNF.shape == truth.shape
    loss = "image" if isinstance(objective, Multimodal) else "next_patch"
    one, other = shown.patches_BNF, truth
    if isinstance(target, NormalizedPixels):
        one, other = normalized(one, truth), normalized(other, truth)
    error_BN = (one - other).square().mean(-1)
    torch.testing.assert_close(error_BN[shown.predicted_BN].sum(), module(batch)[loss].sum)


@pytest.mark.parametrize("index", range(3), ids=["next_patch", "joint", "separate"])
def test_the_patches_read_first_are_given(index: int) -> None:
    shown = module_of(objectives(Pixels())[index]).predicted_patches(batch_of())
    assert shown.predicted_BN.tolist() == [[True] * 9 + [False] * 3] * 3


@pytest.mark.parametrize("objective", [NextPatch(head=LinearHead(), prefix=None), multimodal(prefix=None)])
def test_padding_is_never_predicted(objective: NextPatch | Multimodal) -> None:
    large, small = batch_of(1).images, images_of(torch.rand(1, 3, 4, 4), 2)
    padded = torch.cat([small.patches_BNF, torch.zeros(1, 8, 12)], dim=1)
    mixed = Images(torch.cat([large.patches_BNF, padded]), (*large.grids, *small.grids), 2)
    batch = Batch(images=mixed, sample_numbers_B=torch.arange(2))
    shown = module_of(attrs.evolve(objective, ordering=Raster())).predicted_patches(batch)
    assert shown.predicted_BN.tolist() == [[False] + [True] * 11, [False] + [True] * 3 + [False] * 8]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_the_multimodal_picture_of_a_patch_sees_none_that_is_read_with_it_or_after_it(decoder: Decoder) -> None:
    module, batch = module_of(multimodal(decoder, prefix=None, target=Pixels())), batch_of()
    before = module.predicted_patches(batch).patches_BNF
    # Read backwards: those with a higher number were read before.
    for patch in range(12):
        changed = module.predicted_patches(with_changed_patch(batch, patch)).patches_BNF
        differs_N = (changed - before).abs().amax((0, 2)) > 1e-6
        assert not differs_N[patch:].any()
        assert differs_N[:patch].all()


def test_the_multimodal_picture_needs_no_caption() -> None:
    module, batch = module_of(multimodal()), batch_of()
    with_text, without = (module.predicted_patches(one) for one in (batch, attrs.evolve(batch, text=None)))
    torch.testing.assert_close(with_text.patches_BNF, without.patches_BNF)


def test_the_report_of_a_multimodal_run_shows_what_it_predicts() -> None:
    source = BundledEmoji(split="test")
    made = Experiment(
        name="tiny",
        data=Data(train=source, validation=source, batch_size=4, image_size=16),
        trunk=ViT(**SMALL, patch_size=4),
        objective=multimodal(prefix="uniform"),
        num_steps=2,
        probe_attention="causal",
    )
    found = compute_samples(made, made.objective.build(made.trunk.build()), "")
    assert found.absent == {}
    assert found.predicted_BN is not None
    assert found.predicted_BN.tolist() == [[True] * 15 + [False]] * 4
    assert found.predicted_BHWC is not None
    assert found.predicted_BHWC.shape == (4, 16, 16, 3)
