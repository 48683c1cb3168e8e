"""Orderings that give every sample an order of its own: who passes which sample numbers and seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from core.testing.mutants.orderings import SoundPerSample
from torch import Tensor

from aimcore import CAUSAL, Batch, Images, Loss, Objective, ObjectiveModule, PatchGrid, Reading, component
from aimcore.contracts.decoders import CaptionStart, DecoderState
from aimcore.contracts.images import reorder
from aimcore.evaluation import generate
from aimcore.evaluation.feature_extraction import frozen_reading
from aimcore.evaluation.similarity import caption_likelihoods
from aimcore.testing.cases import Case
from aimcore.testing.causality import findings_of
from aimcore.testing.checks import objectives as checks
from aimcore.testing.fixtures import GRID, batch_for, part_of, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_decoders import JointDecoder
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, Multimodal, NextPatch
from aimcore_targets import Pixels
from aimcore_tokenizers import Bytes

ORDERING = SoundPerSample()
DECODER = JointDecoder(width=16, depth=2, num_heads=2)
MULTIMODAL = Multimodal(ordering=ORDERING, decoder=DECODER, tokenizer=Bytes(supervise_end=True), context_length=6)
OBJECTIVES = (
    NextPatch(ordering=ORDERING, head=LinearHead(), prefix=None),
    MULTIMODAL,
    Classification(num_classes=2, ordering=ORDERING, attention="causal", pooling="last"),
)


def orders(numbers: list[int], seed: int) -> Tensor:
    return torch.stack([ORDERING.drawn(GRID, number, seed) for number in numbers])


def built(objective: Objective) -> Any:
    with seeded():
        return objective.build(StandInTrunk().build()).double()


@pytest.mark.parametrize("training", [True, False])
def test_each_sample_is_read_in_its_own_order_of_the_runs_seed_and_in_evaluation_of_seed_0(training: bool) -> None:
    module = built(NextPatch(ordering=ORDERING, target=Pixels(), head=LinearHead(), prefix=None)).train(training)
    batch = attrs.evolve(batch_for(OBJECTIVES[0], random_images()), sample_numbers_B=torch.tensor([4, 7, 4]), seed=3)
    order_BN = orders([4, 7, 4], 3 if training else 0)
    tokens_BND = module.trunk(batch.images, Reading(attention=CAUSAL, order_BN=order_BN)).tokens_BND
    predictions = tokens_BND[:, :-1] @ next(module.head.parameters()).T
    patches = reorder(batch.images.patches_BNF, order_BN)[:, 1:]
    torch.testing.assert_close(module(batch)["next_patch"].sum, (predictions - patches).square().mean(-1).sum())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize(
    "check",
    [
        checks.check_a_batch_is_the_sum_of_its_parts,
        checks.check_randomness_belongs_to_the_sample,
        checks.check_validation_is_the_same_for_every_run,
        checks.check_its_reading_is_an_order_of_the_patches,
        checks.check_a_dry_run_can_count_it,
    ],
    ids=lambda check: check.__name__,
)
def test_objectives_pass_the_checks_in_which_orders_matter(
    objective: Objective, check: Callable[[Objective], None]
) -> None:
    check(objective)


@pytest.mark.parametrize("objective", OBJECTIVES[:2], ids=lambda objective: objective.name)
def test_nothing_reads_its_own_answer_in_orders_of_samples(objective: Objective) -> None:
    assert findings_of(Case(objective.name, StandInTrunk(), objective, GRID)) == []


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_probes_read_each_sample_in_its_order_of_seed_0(objective: Objective) -> None:
    batch = attrs.evolve(batch_for(objective, random_images()), sample_numbers_B=torch.tensor([9, 2, 5]), seed=3)
    reading = frozen_reading(objective, batch, "causal", ())
    assert reading.order_BN is not None
    assert torch.equal(reading.order_BN, orders([9, 2, 5], 0))


@torch.no_grad()
def test_captions_are_written_and_judged_behind_images_in_their_own_order() -> None:
    module = built(MULTIMODAL).eval()
    read: list[Tensor] = []
    module.trunk.register_forward_pre_hook(lambda _, args: read.append(args[1].order_BN))
    batch = attrs.evolve(batch_for(MULTIMODAL, random_images()), sample_numbers_B=torch.tensor([9, 2, 5]), seed=3)
    generate(module, batch.images, *MULTIMODAL.text, keys=[4, 4, 1])
    assert batch.text is not None
    caption_likelihoods(module, batch, batch.text)
    assert torch.equal(read[0], orders([4, 4, 1], 0))
    assert torch.equal(torch.cat(read[1:]), orders([9, 2, 5], 0))


@torch.no_grad()
def test_a_caption_does_not_depend_on_the_batch_its_image_is_in() -> None:
    module, batch = built(MULTIMODAL).eval(), batch_for(MULTIMODAL, random_images())
    whole = module.caption_start(batch).logits_BV
    torch.testing.assert_close(module.caption_start(part_of(batch, 1, 3)).logits_BV, whole[1:])


def test_objectives_that_override_the_old_reading_are_still_heard_and_warned() -> None:
    with pytest.warns(DeprecationWarning, match=r"Old overrides reading\(images\).*override probe_reading\(batch\)"):

        @component("old")
        class Old(NextPatch):
            def reading(self, images: Images) -> Reading:
                return Reading(order_BN=torch.arange(12).flip(0).expand(len(images.grids), -1))

    with pytest.warns(DeprecationWarning, match="overrides reading"):

        @component("older")
        class Older(NextPatch):
            def reading(self, images: Images) -> Reading:
                return attrs.evolve(super().reading(images), layers=(1,))

    batch = batch_for(Old(), random_images())
    order_BN = Old().probe_reading(batch).order_BN
    assert order_BN is not None
    assert order_BN[0].tolist() == list(range(11, -1, -1))
    with pytest.warns(DeprecationWarning, match=r"reading\(images\) is now probe_reading\(batch\)"):
        reading = Older(ordering=ORDERING).probe_reading(batch)
    assert reading.layers == (1,)
    assert torch.equal(reading.order_BN, orders([0, 0, 0], 0))


def test_modules_that_override_the_old_start_of_captions_are_still_heard_and_warned() -> None:
    with pytest.warns(DeprecationWarning, match=r"overrides start_caption\(images\).*override caption_start\(batch\)"):

        class Old(ObjectiveModule):
            def counts(self, batch: Batch) -> dict[str, int]: ...  # type: ignore[empty-body]
            def forward(self, batch: Batch) -> dict[str, Loss]: ...  # type: ignore[empty-body]

            def start_caption(self, images: Images) -> CaptionStart:
                return CaptionStart(images.patches_BNF[:, 0], DecoderState((), torch.ones(1, 1), 1))

    images = Images(torch.tensor([[[3.0]]]), (PatchGrid(1, 1),), patch_size=1)
    batch = Batch(images=images, sample_numbers_B=torch.tensor([8]))
    assert Old().caption_start(batch).logits_BV.tolist() == [[3.0]]
    module, zeros_B = built(MULTIMODAL).eval(), torch.zeros(3, dtype=torch.int64)
    with pytest.warns(DeprecationWarning, match="is now caption_start"):
        start = module.start_caption(random_images())
    expected = module.caption_start(Batch(images=random_images(), sample_numbers_B=zeros_B))
    torch.testing.assert_close(start.logits_BV, expected.logits_BV)
