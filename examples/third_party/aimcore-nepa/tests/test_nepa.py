"""The contract of an objective, the loss computed by hand, and what the causality check says."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from aimcore_nepa import NextEmbedding, NextEmbeddingModule
from aimcore_nepa.objective import next_embedding_loss

from aimcore import CAUSAL, AimcoreError, Batch, Loss, PatchGrid, Reading, component
from aimcore.contracts.images import images_of
from aimcore.testing import Case, findings_of, parametrize_with_checks
from aimcore_trunks import ViT

TRUNK = ViT(width=16, depth=2, num_heads=2, patch_size=4)


@parametrize_with_checks(NextEmbedding.examples())
def test_it_conforms(component, check):
    check(component)


def test_the_loss_is_minus_the_cosine_with_the_next_embedding():
    predicted_BND = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]]])
    target_BND = torch.tensor([[[9.0, 9.0], [3.0, 4.0], [1.0, -1.0]]])
    loss_BN = next_embedding_loss(predicted_BND, target_BND)
    # (1, 0) and (3, 4): 3/5. (0, 2) and (1, -1): -1/sqrt(2). The last prediction and the first target are not used.
    torch.testing.assert_close(loss_BN, torch.tensor([[math.nan, -0.6, math.sqrt(0.5)]]), equal_nan=True)


def test_every_patch_but_the_first_is_scored_against_the_embedding_of_the_trunk():
    images = images_of(torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)), patch_size=4)
    trunk = TRUNK.build()
    loss = NextEmbedding().build(trunk)(Batch(images, torch.arange(2)))["next_embedding"]
    assert loss.num_targets == 2 * 5
    predicted_BND, embedded_BND = trunk(images, Reading(attention=CAUSAL)).tokens_BND, trunk.embed_patches(images)
    one, other = predicted_BND[1, 2], embedded_BND[1, 3]
    torch.testing.assert_close(loss.per_position_BN[1, 3], -(one @ other) / (one.norm() * other.norm()))


def test_targets_pass_no_gradient_on():
    """With the outputs cut off, the embeddings alone would be moved; nothing is."""
    trunk = TRUNK.build()
    trunk.register_forward_hook(lambda _, __, out: out._replace(tokens_BND=out.tokens_BND.detach().requires_grad_()))
    batch = Batch(images_of(torch.rand(1, 3, 8, 8), patch_size=4), torch.arange(1))
    NextEmbedding().build(trunk)(batch)["next_embedding"].sum.backward()
    assert all(weight.grad is None for weight in trunk.parameters())


class UnshiftedModule(NextEmbeddingModule):
    def forward(self, batch):
        predicted_BND = self.trunk(batch.images, Reading(attention=CAUSAL)).tokens_BND
        loss_BN = next_embedding_loss(predicted_BND.roll(-1, 1), self.trunk.embed_patches(batch.images).detach())
        return {"next_embedding": Loss(loss_BN.nansum(), (~loss_BN.isnan()).sum(), per_position_BN=loss_BN)}


@component("unshifted")
class Unshifted(NextEmbedding):
    """The mistake to make: each patch is predicted from the output that has read it."""

    def build(self, trunk):
        return UnshiftedModule(trunk)


def test_the_causality_check_passes_it_and_finds_the_loss_that_is_not_shifted():
    assert findings_of(Case("nepa", TRUNK, NextEmbedding(), PatchGrid(2, 3))) == []
    found = findings_of(Case("unshifted", TRUNK, Unshifted(), PatchGrid(2, 3)))
    assert any("reads its own target, patch (0, 1)" in text for text in found)


def test_the_study_offers_two_scales():
    study = runpy.run_path(Path(__file__).parents[1] / "study.py")["study"]
    for scale in ("smoke", "small"):
        assert [experiment.name for experiment in study(scale).experiments] == ["nepa"]
    with pytest.raises(AimcoreError, match="there is no scale 'paper': choose from smoke, small"):
        study("paper")
