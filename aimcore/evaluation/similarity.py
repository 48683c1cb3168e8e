"""Similarities of all pairs of images and texts, and how well they rank the matching pairs.

Shape suffixes: B batch, T text tokens, E embedding width, Q queries, C candidates (texts of images, or the reverse).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import comb

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.evaluations import EvaluationData
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.sources import OpenSource
from aimcore.evaluation.prompts import after_prompt

TOKENS_PER_FORWARD = 2**15
"""Maximum number of pairs of images and captions in one forward pass of a decoder that scores captions."""
_IMAGES_AT_ONCE = 16


class NonFiniteSimilarity(AimcoreError):
    """Similarities are NaN or infinite, so they cannot rank anything."""


def similarities(
    module: ObjectiveModule,
    data: EvaluationData,
    source: OpenSource,
    texts: Sequence[str],
    indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return similarities of images and texts: cosines of their embeddings, or log-likelihoods of the texts in nats.

    Each image is read once, by one process. Every process must call this, and all get the same result.

    Args:
        module: a module whose objective has the skill ``"embed"``, or else ``"caption"``.
        data: the experiment's data.
        source: the source of the images.
        texts: the texts to compare with the images.
        indices: the images to compare; all by default.

    Returns:
        Indices into the source ``[n]``, ascending, and similarities ``[n, len(texts)]`` in float64, on the CPU.

    Raises:
        NonFiniteSimilarity: some are NaN or infinite.
    """
    if "embed" in data.objective.skills:
        return compared(module, data, source, embedded_texts(module, data, texts), indices)
    text = data.encode(texts)
    return _finite(*data.rows(lambda batch: caption_likelihoods(module, batch, text), source, indices))


def compared(
    module: ObjectiveModule,
    data: EvaluationData,
    source: OpenSource,
    embedded_CE: Tensor,
    indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:
    """Like :func:`similarities`, for given embeddings ``[C, E]``: ``[n, C]`` products with embeddings of the images.

    Raises:
        NonFiniteSimilarity: some are NaN or infinite.
    """
    numbers_n, image_nE = data.rows(lambda batch: module.embed_images(batch.images), source, indices)
    return _finite(numbers_n, image_nE.double() @ embedded_CE.T)


def embedded_texts(module: ObjectiveModule, data: EvaluationData, texts: Sequence[str]) -> Tensor:
    """Return embeddings ``[len(texts), E]`` of unit length, in float64 on the CPU."""
    text = data.encode(texts)
    blocks = _blocks(torch.arange(len(texts)), data.batch_size)
    return torch.cat([module.embed_texts(_rows(text, part)) for part in blocks]).double().cpu()


def _finite(numbers_n: Tensor, found_nC: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(found_nC.isfinite().all()):
        raise NonFiniteSimilarity("some similarities of images and texts are no finite numbers: training has diverged")
    return numbers_n, found_nC


def caption_likelihoods(
    module: ObjectiveModule, batch: Batch, text: Text, *, prompt: Sequence[int] = (), tokens: int = TOKENS_PER_FORWARD
) -> Tensor:
    """Return ``[B, C]`` float64: the log-likelihood of each of C captions for each image, in nats.

    Each image is read once, then the ids of ``prompt``, if there are any; ``text`` follows them. Captions are sorted by
    length and cut after the longest of a block; this changes nothing, because no token attends to later ones.
    """
    lengths_C = text.valid_BT.int().cumsum(1).argmax(1) + 1
    order_C = lengths_C.argsort()
    found = []
    for part_of_batch in _parts(batch):
        start = after_prompt(module, module.caption_start(part_of_batch), prompt)
        num_images, kept = start.state.seen_BL.shape
        columns = []
        for part in _blocks(order_C, max(1, tokens // (num_images * (kept + text.ids_BT.shape[1])))):
            captions = _cut(_rows(text, part.repeat(num_images)), int(lengths_C[part].max()))
            judged = start.at(torch.arange(num_images).repeat_interleave(len(part)))
            likelihoods = module.caption_log_likelihoods(judged, captions).double().cpu()
            columns.append(likelihoods.reshape(num_images, -1))
        found.append(torch.cat(columns, dim=1)[:, order_C.argsort()])
    return torch.cat(found)


def _blocks(places: Tensor, size: int) -> Iterator[Tensor]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _parts(batch: Batch) -> Iterator[Batch]:
    images = batch.images
    for first in range(0, len(images.grids), _IMAGES_AT_ONCE):
        part = slice(first, first + _IMAGES_AT_ONCE)
        sizes = None if images.sizes is None else images.sizes[part]
        some = attrs.evolve(images, patches_BNF=images.patches_BNF[part], grids=images.grids[part], sizes=sizes)
        yield Batch(images=some, sample_numbers_B=batch.sample_numbers_B[part], seed=batch.seed)


def _rows(text: Text, rows: Tensor) -> Text:
    return Text(ids_BT=text.ids_BT[rows], valid_BT=text.valid_BT[rows])


def _cut(text: Text, length: int) -> Text:
    return Text(ids_BT=text.ids_BT[:, :length], valid_BT=text.valid_BT[:, :length])


def hits(similarities_QC: Tensor, right_QC: Tensor, k: int) -> Tensor:
    """Return ``[Q]`` bool: whether a correct candidate is among the first k of each query.

    Ties count as wrong: a wrong candidate with the same similarity as the best correct one ranks before it, so that a
    model with constant similarities has no hits.

    >>> similarities_QC = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 0.3]])
    >>> right_QC = torch.tensor([[True, False, False], [False, False, True]])
    >>> hits(similarities_QC, right_QC, 1).tolist(), hits(similarities_QC, right_QC, 2).tolist()
    ([True, False], [True, True])
    """
    best_Q1 = similarities_QC.masked_fill(~right_QC, -torch.inf).amax(1, keepdim=True)
    num_before_Q = ((similarities_QC >= best_Q1) & ~right_QC).sum(1)
    return (num_before_Q < k) & right_QC.any(1)


def chance_of_hits(right_QC: Tensor, k: int) -> float:
    """Return the expected fraction of hits for candidates in random order.

    With h correct candidates among C it is 1 - C(C - h, k) / C(C, k), the probability that the first k are not all
    wrong.
    """
    num = right_QC.shape[1]
    k = min(k, num)
    found = [1 - Fraction(comb(num - int(right), k), comb(num, k)) for right in right_QC.sum(1).tolist()]
    return float(sum(found) / len(found))
