"""Losses over many outputs per token, such as a vocabulary, without all outputs of all tokens at once.

Shape suffixes: M tokens, m tokens of a chunk, D width, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aimcore.modeling.row_counts import in_rounded_rows

LARGE_OUTPUT = 4096
"""Smallest number of outputs that are chunked: fewer take less memory than the hidden values of a block."""
VALUES_AT_ONCE = 2**24
"""Outputs that are held at once: 64 MiB in float32, and as much again for their gradient."""


def losses_in_chunks(
    layer: Callable[[Tensor], Tensor],
    tokens_MD: Tensor,
    num_outputs: int,
    loss_of: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    """Return ``[M]``, the loss of each token, from outputs that are computed in chunks of tokens.

    The backward pass computes the outputs of a chunk again, so that neither they nor their gradients are held for all
    tokens: one more product with the layer's weights. Losses and gradients are those of ``loss_of(layer(tokens_MD),
    slice(None))``, which is what is computed where few outputs are needed. Their number is rounded up
    (:mod:`aimcore.modeling.row_counts`).

    Args:
        layer: the output layer, ``[m, D]`` to ``[m, K]``.
        tokens_MD: its inputs.
        num_outputs: K.
        loss_of: from outputs ``[m, K]`` and the rows of the M tokens that they belong to, the losses ``[m]``.
    """
    at_once = max(1, VALUES_AT_ONCE // num_outputs)
    if num_outputs < LARGE_OUTPUT or len(tokens_MD) <= at_once:
        return loss_of(in_rounded_rows(layer, tokens_MD), slice(None))

    def of_chunk(tokens_mD: Tensor, rows: slice) -> Tensor:
        return loss_of(in_rounded_rows(layer, tokens_mD), rows)

    losses = []
    for start in range(0, len(tokens_MD), at_once):
        rows = slice(start, start + at_once)
        if torch.is_grad_enabled():
            losses.append(checkpoint(of_chunk, tokens_MD[rows], rows, use_reentrant=False, preserve_rng_state=False))
        else:
            losses.append(of_chunk(tokens_MD[rows], rows))
    return torch.cat(losses)
