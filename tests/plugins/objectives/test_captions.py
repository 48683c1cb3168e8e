"""Captions written and judged: the same probabilities by teacher forcing, token by token, and in training."""

from __future__ import annotations

import pytest
import torch

from aimcore import Batch, ObjectiveModule
from aimcore.contracts.decoders import CaptionStart, log_probabilities
from aimcore.testing.fixtures import batch_for, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_decoders import CrossAttentionDecoder, JointDecoder, SeparateDecoder
from aimcore_objectives import CapPa, Captioning, Contrastive, Multimodal
from aimcore_orderings import Spiral
from aimcore_tokenizers import Bytes

SMALL = {"width": 16, "depth": 2, "num_heads": 2}
TOKENIZER = Bytes(supervise_end=True)
OBJECTIVES = {
    "joint": Captioning(decoder=JointDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8),
    "cross_attention": Captioning(decoder=CrossAttentionDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8),
    "prefix": Captioning(decoder=JointDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8, attention="prefix"),
    "cappa": CapPa(decoder=CrossAttentionDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8),
    "multimodal": Multimodal(
        decoder=JointDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8, ordering=Spiral(), prefix=3
    ),
    "separate": Multimodal(decoder=SeparateDecoder(**SMALL), tokenizer=TOKENIZER, context_length=8, prefix=None),
}


def built(name: str) -> tuple[ObjectiveModule, Batch]:
    objective = OBJECTIVES[name]
    with seeded():
        module = objective.build(StandInTrunk().build()).double().eval()
    return module, batch_for(objective, random_images())


@pytest.mark.parametrize("name", OBJECTIVES)
@torch.no_grad()
def test_log_likelihoods_are_the_sum_of_the_steps(name: str) -> None:
    module, batch = built(name)
    assert batch.text is not None
    ids_BT, valid_BT = batch.text.ids_BT, batch.text.valid_BT
    (logits_BV, state), total_B = module.caption_start(batch), torch.zeros(3, dtype=torch.float64)
    for position in range(ids_BT.shape[1]):
        total_B += log_probabilities(logits_BV, ids_BT[:, position]) * valid_BT[:, position]
        if position + 1 < ids_BT.shape[1]:
            logits_BV, state = module.next_token(ids_BT[:, position], state)
    found_B = module.caption_log_likelihoods(module.caption_start(batch), batch.text)
    torch.testing.assert_close(found_B, total_B, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        ObjectiveModule.caption_log_likelihoods(module, module.caption_start(batch), batch.text), total_B
    )


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "prefix"])
@torch.no_grad()
def test_log_likelihoods_are_the_loss_where_training_reads_images_alike(name: str) -> None:
    module, batch = built(name)
    assert batch.text is not None
    found_B = module.caption_log_likelihoods(module.caption_start(batch), batch.text)
    torch.testing.assert_close(-found_B.sum(), module(batch)["text"].sum)


@torch.no_grad()
def test_a_random_prefix_in_training_is_bidirectional_afterwards() -> None:
    module, batch = built("prefix")
    with seeded():
        other = OBJECTIVES["joint"].build(StandInTrunk().build()).double().eval()
    assert batch.text is not None
    scores = [one.caption_log_likelihoods(one.caption_start(batch), batch.text) for one in (module, other)]
    torch.testing.assert_close(*scores)
    assert not torch.allclose(-scores[0].sum(), module(batch)["text"].sum)


@pytest.mark.parametrize("name", OBJECTIVES)
@torch.no_grad()
def test_many_captions_are_judged_on_one_reading_of_an_image(name: str) -> None:
    module, batch = built(name)
    assert batch.text is not None
    start = module.caption_start(batch)
    repeated = start.at(torch.tensor([2, 2, 2]))
    assert isinstance(repeated, CaptionStart)
    third = CaptionStart(*start).at(torch.tensor([2]))
    alone = [module.caption_log_likelihoods(third, TOKENIZER.encode([f"{number} red shoes"], 8)) for number in range(3)]
    torch.testing.assert_close(module.caption_log_likelihoods(repeated, batch.text), torch.cat(alone))


@torch.no_grad()
def test_the_contrast_embeds_to_unit_vectors() -> None:
    objective = Contrastive.examples()[0]
    module, batch = objective.build(StandInTrunk().build()).double().eval(), batch_for(objective, random_images())
    assert batch.text is not None
    for embedded_BE in (module.embed_images(batch.images), module.embed_texts(batch.text)):
        assert embedded_BE.shape == (3, 8)
        torch.testing.assert_close(embedded_BE.norm(dim=-1), torch.ones(3), check_dtype=False)


def test_objectives_say_what_their_modules_can() -> None:
    assert {name: set(objective.skills) for name, objective in OBJECTIVES.items()} == {
        name: {"caption"} for name in OBJECTIVES
    }
    assert set(Contrastive().skills) == {"embed"}
