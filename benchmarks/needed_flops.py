"""The arithmetic of a training step that its loss needs, and the shapes of its matrix products.

One multiply-add is two FLOPs; matrix products and attention count, element-wise operations do not. Not needed, and not
counted, are: pairs of queries and keys that the mask forbids, the last block's outputs and the head where no loss is
taken, and what nobody reads of the last patch. The backward pass takes twice the forward one, except in the patch
embedding, whose input has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aimcore import Batch, Experiment
from aimcore.modeling.layers import swiglu_width
from aimcore_decoders import JointDecoder
from aimcore_heads import MLPHead
from aimcore_objectives import Multimodal, NextPatch
from aimcore_objectives.steps import first_targets
from aimcore_trunks import ViT


def needed_flops(experiment: Experiment, batch: Batch) -> int:
    """Return FLOPs of forward and backward of one step on ``batch``.

    Raises:
        TypeError: the objective is not next-patch prediction with an MLP head, or AIMv2's with the joint decoder.
    """
    trunk, objective = experiment.trunk, experiment.objective
    assert isinstance(trunk, ViT)
    prefix_B, num_patches = first_targets(batch, "uniform", training=True), batch.images.patches_BNF.shape[1]
    values = trunk.patch_size**2 * trunk.num_channels
    scored = int((num_patches - prefix_B).sum())
    if isinstance(objective, NextPatch) and isinstance(objective.head, MLPHead):
        # Rows from the last of the prefix to the last but one have a loss; nothing reads the last patch.
        read = num_patches - 1
        blocks = sum(_trunk_flops(trunk, int(prefix), read, first_needed=int(prefix) - 1) for prefix in prefix_B)
        head, embedded = objective.head, read * len(prefix_B)
        per_row = trunk.width * head.width + 2 * head.depth * head.ffn_ratio * head.width**2 + head.width * values
        outputs = 2 * scored * per_row
    elif isinstance(objective, Multimodal) and isinstance(objective.decoder, JointDecoder):
        assert batch.text is not None
        blocks = sum(_trunk_flops(trunk, int(prefix), num_patches, first_needed=0) for prefix in prefix_B)
        embedded, decoder = num_patches * len(prefix_B), objective.decoder
        outputs = 2 * embedded * trunk.width * decoder.width
        outputs += sum(_decoder_flops(decoder, num_patches, batch.text.ids_BT.shape[1], int(p)) for p in prefix_B)
        outputs += 2 * decoder.width * scored * values
        outputs += 2 * decoder.width * int(batch.text.valid_BT.sum()) * objective.tokenizer.vocabulary_size
    else:
        raise TypeError(f"the arithmetic of {objective.name!r} with these parts is not known here")
    return 3 * (blocks + outputs) + 2 * (2 * embedded * values * trunk.width)


def step_shapes(experiment: Experiment) -> Iterator[tuple[int, int, int]]:
    """Yield rows, inputs and outputs of the large products of a step."""
    trunk, objective, data = experiment.trunk, experiment.objective, experiment.data
    assert isinstance(trunk, ViT)
    rows = data.batch_size * (data.image_size // trunk.patch_size) ** 2
    sizes = {(trunk.width, trunk.width), (trunk.width, trunk.hidden_width), (trunk.hidden_width, trunk.width)}
    if isinstance(objective, NextPatch) and isinstance(objective.head, MLPHead):
        width, hidden = objective.head.width, objective.head.ffn_ratio * objective.head.width
        yield from ((rows // 2, inputs, outputs) for inputs, outputs in ((width, hidden), (hidden, width)))
    if isinstance(objective, Multimodal) and isinstance(objective.decoder, JointDecoder):
        width, hidden = objective.decoder.width, swiglu_width(objective.decoder.width)
        sizes |= {(width, width), (width, hidden), (hidden, width)}
        yield data.batch_size * objective.context_length, width, objective.tokenizer.vocabulary_size
    yield from ((rows, inputs, outputs) for inputs, outputs in sorted(sizes))


def _trunk_flops(trunk: ViT, prefix: int, length: int, first_needed: int) -> int:
    """Return forward FLOPs of the blocks for one image: of the last block, rows from ``first_needed`` on only."""
    matrices = 2 if trunk.ffn == "gelu" else 3
    seen = np.maximum(np.arange(length) + 1, prefix)  # keys per query
    all_rows = _block_flops(trunk.width, trunk.hidden_width, matrices, seen, length)
    last = _block_flops(trunk.width, trunk.hidden_width, matrices, seen[first_needed:], length)
    return (trunk.depth - 1) * all_rows + last


def _decoder_flops(decoder: JointDecoder, num_patches: int, num_tokens: int, prefix: int) -> int:
    hidden, length = swiglu_width(decoder.width), num_patches + num_tokens
    seen = np.arange(length) + 1
    # Patches are predicted from the last of the prefix to the last but one; every text input predicts a token.
    needed = np.delete(seen, [*range(prefix - 1), num_patches - 1])
    all_rows = _block_flops(decoder.width, hidden, 3, seen, length)
    return (decoder.depth - 1) * all_rows + _block_flops(decoder.width, hidden, 3, needed, length)


def _block_flops(width: int, hidden: int, matrices: int, keys_per_query: np.ndarray, num_keys: int) -> int:
    """Return FLOPs of a block: keys and values of all tokens; the rest for the given queries only."""
    per_query = 2 * width**2 + matrices * width * hidden  # query, output, feed-forward
    pairs = int(keys_per_query.sum())
    return 2 * (2 * num_keys * width**2 + len(keys_per_query) * per_query + 2 * width * pairs)
