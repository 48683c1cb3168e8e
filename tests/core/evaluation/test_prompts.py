"""Captions that begin with a prompt: written as by a model that has just written the prompt itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aimcore import Attention, InvalidValue, Reading, Text, TextTokenizer
from aimcore.evaluation import generate
from aimcore.evaluation.prompts import prompt_ids
from aimcore.evaluation.similarity import caption_likelihoods
from aimcore.testing.fixtures import batch_of, draw_nonzero, random_images
from aimcore.testing.requirements import seeded
from aimcore.testing.small_parts import StandInTrunk
from aimcore_decoders import CrossAttentionDecoder, JointDecoder
from aimcore_objectives import Captioning
from aimcore_tokenizers import Bytes

CONTEXT, TOKENIZER = 9, Bytes(supervise_end=True)


def module_of(decoder: Any) -> Any:
    with seeded():
        objective = Captioning(decoder=decoder, tokenizer=TOKENIZER, context_length=CONTEXT)
        module = objective.build(StandInTrunk().build()).double().eval()
    draw_nonzero(module)
    return module


DECODERS = [JointDecoder(width=16, depth=2, num_heads=2), CrossAttentionDecoder(width=16, depth=2, num_heads=2)]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
@torch.no_grad()
def test_captions_go_on_from_the_prompt_as_reading_everything_anew_would(decoder: Any) -> None:
    module, images = module_of(decoder), random_images(number=2)
    ids = list(prompt_ids("ab", TOKENIZER, CONTEXT))
    captions = generate(module, images, TOKENIZER, CONTEXT, prompt="ab", max_tokens=3)
    for row, caption in enumerate(captions):
        expected = list(ids)
        while len(expected) < len(ids) + 3 and expected[-1] != TOKENIZER.end_id:
            padded_BT = torch.tensor([expected + [TOKENIZER.padding_id] * (CONTEXT - len(expected))]).expand(2, -1)
            text = Text(ids_BT=padded_BT, valid_BT=torch.ones_like(padded_BT, dtype=torch.bool))
            decoded = module.decoder(
                module.trunk(images, Reading()), Attention(), text, None, torch.arange(2 * CONTEXT)
            )
            logits_V = decoded.logits_MV.reshape(2, CONTEXT, -1)[row, len(expected)]
            logits_V[TOKENIZER.padding_id] = -torch.inf
            expected.append(int(logits_V.argmax()))
        assert list(caption.ids) == expected
        assert caption.text == TOKENIZER.decode(expected)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
@torch.no_grad()
def test_what_follows_a_prompt_has_the_rest_of_the_likelihood(decoder: Any) -> None:
    module, batch = module_of(decoder), batch_of(random_images(number=3))
    ids = prompt_ids("red", TOKENIZER, CONTEXT)
    text, length = TOKENIZER.encode(["red hat"], CONTEXT), len(ids)
    assert text.ids_BT[0, :length].tolist() == list(ids)
    whole = caption_likelihoods(module, batch, text)
    before = caption_likelihoods(module, batch, Text(text.ids_BT[:, :length], text.valid_BT[:, :length]))
    rest = Text(text.ids_BT[:, length:], text.valid_BT[:, length:])
    torch.testing.assert_close(before + caption_likelihoods(module, batch, rest, prompt=ids), whole)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, Bytes()])
def test_a_prompt_has_no_end_and_leaves_room(tokenizer: TextTokenizer) -> None:
    ids = prompt_ids("a hat", tokenizer, CONTEXT)
    assert tokenizer.end_id not in ids
    assert tokenizer.decode(ids) == "a hat"
    with pytest.raises(InvalidValue, match=r"prompt: has 1[01] tokens, and the context 9"):
        prompt_ids("ten bytes.", tokenizer, CONTEXT)
