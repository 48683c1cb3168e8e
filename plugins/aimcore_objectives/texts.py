"""Captions as targets: shared by the objectives that predict text.

Shape suffixes: B batch, T text tokens, M scored tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import Batch, Loss, Text
from aimcore_objectives.steps import at_least_float32, spread


def text_of(batch: Batch) -> Text:
    """Return the captions of a batch.

    Raises:
        ValueError: the batch has no captions.
    """
    if batch.text is None:
        raise ValueError("this objective learns from captions, and the batch has none: use a source with captions")
    return batch.text


def num_tokens(batch: Batch) -> int:
    """Return the number of scored tokens: all that are not padding."""
    return int(text_of(batch).valid_BT.sum())


def scored_tokens(text: Text) -> Tensor:
    """Return ``[M]``, the flat positions ``b * T + t`` of scored tokens, on the CPU like the text."""
    return text.valid_BT.flatten().nonzero().squeeze(1)


def text_loss(text: Text, where_M: Tensor, logits_MV: Tensor, *, weight: float = 1.0) -> Loss:
    """Return the cross-entropy of the tokens at ``where_M``.

    It is averaged over all tokens of the global batch, for any number of processes. The authors' training code averages
    the means of the processes, which gives tokens a larger weight if a process has fewer; the paper (arXiv:2411.14402,
    section 2.1) averages over each caption first.
    """
    targets_M = text.ids_BT.flatten().index_select(0, where_M).to(logits_MV.device)
    loss_M = functional.cross_entropy(at_least_float32(logits_MV), targets_M, reduction="none")
    per_position_BT = spread(loss_M, where_M.to(loss_M.device), text.ids_BT.shape, torch.nan)
    return Loss(loss_M.sum(), torch.tensor(len(where_M), device=loss_M.device), weight, per_position_BT)
