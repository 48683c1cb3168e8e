"""Prompts: text between the image and the caption that is generated or scored."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aimcore.contracts.decoders import CaptionStart
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.tokenizers import TextTokenizer


def prompt_ids(prompt: str, tokenizer: TextTokenizer, context_length: int) -> tuple[int, ...]:
    """Return the ids of a prompt: with the begin token of the tokenizer, if it has one, and without an end token.

    Raises:
        InvalidValue: the prompt leaves no room for a token in the context.
    """
    # A text has at most one token per byte, plus a begin token, an end token and SentencePiece's first blank.
    text = tokenizer.encode([prompt], max(context_length, len(prompt.encode()) + 3))
    ids = text.ids_BT[0].tolist()
    first = 0 if tokenizer.begin_id is None else 1  # the begin token may have the end's id
    if tokenizer.end_id in ids[first:]:
        ids = ids[: ids.index(tokenizer.end_id, first)]
    else:
        ids = ids[: int(text.valid_BT[0].sum())]
    if len(ids) >= context_length:
        message = f"has {len(ids)} tokens, and the context {context_length}: nothing could be written after it"
        raise InvalidValue("caption", [("prompt", message)])
    return tuple(ids)


def after_prompt(module: ObjectiveModule, start: CaptionStart, ids: Sequence[int]) -> CaptionStart:
    """Read the tokens ``ids`` after each image; the captions that are generated or scored follow them."""
    logits_BV, state = start
    for token in ids:
        given_B = torch.full((len(logits_BV),), token, dtype=torch.int64, device=logits_BV.device)
        logits_BV, state = module.next_token(given_B, state)
    return CaptionStart(logits_BV, state)
