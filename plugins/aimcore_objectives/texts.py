"""Captions as targets: shared by the objectives that predict text.

Shape suffixes: B batch, T text tokens, M scored tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

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


def token_losses(text: Text, where_M: Tensor, device: torch.device) -> Callable[[Tensor, slice], Tensor]:
    """Return the function from logits ``[m, V]`` of some of the tokens at ``where_M`` to their cross-entropies."""
    targets_M = text.ids_BT.flatten().index_select(0, where_M).to(device)

    def losses(logits_mV: Tensor, rows: slice) -> Tensor:
        return functional.cross_entropy(at_least_float32(logits_mV), targets_M[rows], reduction="none")

    return losses


def text_loss(text: Text, where_M: Tensor, loss_M: Tensor, *, weight: float = 1.0) -> Loss:
    """Return the loss of captions, from the cross-entropies of the tokens at ``where_M``.

    It is averaged over all tokens of the global batch, for any number of processes. The authors' training code averages
    the means of the processes, which gives tokens a larger weight if a process has fewer; the paper (arXiv:2411.14402,
    section 2.1) averages over each caption first.
    """
    per_position_BT = spread(loss_M, where_M.to(loss_M.device), text.ids_BT.shape, torch.nan)
    return Loss(loss_M.sum(), torch.tensor(len(where_M), device=loss_M.device), weight, per_position_BT)
