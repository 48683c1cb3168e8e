"""Mistakes that public code for the same job makes, where no other test looks for them.

docs/robustness.md lists all of them, with their tests.
"""

from __future__ import annotations

import attrs
import pytest
import torch

from aimcore import Batch, Data, Images, PatchGrid, Reading, TrunkModule, component
from aimcore.data import train_steps
from aimcore.evaluation.validation import validate
from aimcore.testing import Case, findings_of
from aimcore_heads import LinearHead
from aimcore_objectives import MaskedPatch, NextPatch
from aimcore_objectives.masked_patch import MaskedPatchModule
from aimcore_objectives.steps import first_targets
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

TRUNK = ViT(width=16, depth=1, num_heads=2, patch_size=4, mask_token=True)
OBJECTIVES = (NextPatch(head=LinearHead()), MaskedPatch(head=LinearHead()))


def test_no_rank_and_no_step_repeats_the_prefixes_and_masks_of_another() -> None:
    source = BundledFashionMNIST()
    data = Data(train=source, validation=source, batch_size=16, image_size=16)
    module = OBJECTIVES[1].build(TRUNK.build())

    def drawn(rank: int, world_size: int) -> dict[int, tuple[int, bytes]]:
        """The prefix and the mask of each sample number that a rank reads in two steps."""
        found = {}
        steps = train_steps(data, source.open(), patch_size=4, seed=3, num_steps=2, rank=rank, world_size=world_size)
        for batch in (batch for step in steps for batch in step):
            prefix_B, mask_BN = first_targets(batch, "uniform", training=True), module.masks(batch)
            numbers = batch.sample_numbers_B.tolist()
            found |= {n: (int(p), m.tobytes()) for n, p, m in zip(numbers, prefix_B, mask_BN, strict=True)}
        return found

    alone, first, second = drawn(0, 1), drawn(0, 2), drawn(1, 2)
    assert first | second == alone
    assert not first.keys() & second.keys()
    for part in (0, 1):
        orders = [[drawn_by[number][part] for number in sorted(drawn_by)] for drawn_by in (first, second)]
        assert orders[0] != orders[1]
        assert orders[0][:8] != orders[0][8:]  # the two steps of one rank
    assert len({mask for _, mask in alone.values()}) == 32


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["next_patch", "masked_patch"])
def test_images_of_one_patch_have_no_target_and_validation_divides_by_nothing(objective) -> None:
    torch.manual_seed(0)
    module = objective.build(TRUNK.build())
    images = Images(torch.rand(2, 1, 48), (PatchGrid(1, 1),) * 2, 4)
    batch = Batch(images, torch.arange(2))
    for loss in module(batch).values():
        assert (float(loss.sum.detach()), int(loss.num_targets)) == (0.0, 0)
    validation = validate(module, [batch])
    assert [loss.mean for loss in validation.losses.values()] == [None]
    assert validation.total is None


class InvertedModule(MaskedPatchModule):
    """Takes True for what may be read."""

    def __init__(self, config: MaskedPatch, trunk: TrunkModule) -> None:
        super().__init__(config, trunk)
        self.trunk.register_forward_pre_hook(lambda _, given: (given[0], self.inverted(given[1])))

    def inverted(self, reading: Reading) -> Reading:
        assert reading.masked_BN is not None
        return attrs.evolve(reading, masked_BN=~reading.masked_BN)


@component("inverted")
class Inverted(MaskedPatch):
    """Masks what is given, and reads what is predicted."""

    def build(self, trunk: TrunkModule) -> MaskedPatchModule:
        return InvertedModule(self, trunk)


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_a_mask_whose_true_means_visible_is_caught(ratio: float) -> None:
    case = Case("inverted", TRUNK, Inverted(head=LinearHead(), ratio=ratio), PatchGrid(3, 4))
    found = findings_of(case)
    assert any("reads its own target" in text and "by gradient" in text for text in found)
    assert any("reads its own target" in text and "by perturbation" in text for text in found)
