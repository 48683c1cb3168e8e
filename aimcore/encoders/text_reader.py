"""Reads texts for an encoder that has a text tower: strings, or ids that a tokenizer gave.

Shape suffixes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.messages import shown
from aimcore.contracts.objectives import Objective
from aimcore.encoders.encoder_source import EncoderError

_MOST_IDS = 2**31


def read_text(texts: Sequence[str] | Text | Tensor, objective: Objective, vocabulary_size: int | None) -> Text:
    """Return texts as the text tower of ``objective`` reads them.

    Args:
        texts: strings, or ids ``[B, T]``, padded at the end.
        objective: has a text tower.
        vocabulary_size: number of ids that the tower has; None if unknown.

    Raises:
        EncoderError: something else than a list of at least one string, or ids that the tower cannot read.
        AimcoreError: texts are given, and the tokenizer is unknown.
    """
    if isinstance(texts, Text):
        return texts
    assert objective.text is not None, "two towers read text"
    tokenizer, context_length = objective.text
    if isinstance(texts, Tensor):
        _require_ids(texts, vocabulary_size or _MOST_IDS, context_length)
        return Text(ids_BT=texts, valid_BT=torch.ones_like(texts, dtype=torch.bool))
    if isinstance(texts, str):
        raise EncoderError(f"give a list of texts, such as [{texts!r}]")
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(text, str) for text in texts):
        raise EncoderError(f"give a list of at least one text, such as ['a photo of a cat']; got {shown(texts)}")
    return tokenizer.encode(list(texts), context_length)


def _require_ids(ids_BT: Tensor, vocabulary_size: int, context_length: int) -> None:
    """Refuse ids that the text tower cannot read."""
    is_fit = ids_BT.dim() == 2 and ids_BT.numel() > 0 and ids_BT.shape[1] <= context_length
    is_fit = is_fit and not ids_BT.is_floating_point()
    if not is_fit or int(ids_BT.min()) < 0 or int(ids_BT.max()) >= vocabulary_size:
        values = f" from {ids_BT.min().item()} to {ids_BT.max().item()}" if ids_BT.numel() else ""
        raise EncoderError(
            f"ids of texts are whole numbers [B, T] from 0 to {vocabulary_size - 1}, with T at most {context_length}; "
            f"got {ids_BT.dtype} {list(ids_BT.shape)}{values}"
        )
