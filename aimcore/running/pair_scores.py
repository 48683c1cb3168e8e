"""Scores of image-text pairs: the cosine between an image and its caption in the joint space of an encoder.

n: samples that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import cast

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.batches import Text
from aimcore.contracts.errors import AimcoreError, DataNotFound, InvalidValue, UnreadableSample
from aimcore.contracts.sources import OpenSource
from aimcore.data.captions import has_captions, wanted_captions
from aimcore.data.streaming import stream
from aimcore.encoders.embedding import Embedding, features_of, has_towers
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.preprocessing import EncoderTransform

Progress = Callable[[str, int, int], None]
_CHUNK = 64


class CannotScore(AimcoreError):
    """The encoder gives a score that is not a number."""


@attrs.frozen(eq=False)
class PairScores:
    """Scores by position in ``indices_n``."""

    scores_n: npt.NDArray[np.float64]
    """NaN without a score."""
    identifiers: Mapping[int, str]
    """Names of samples by their number."""
    broken: Mapping[int, str]
    """Causes by the number of the sample, of those that cannot be read."""
    without_caption: frozenset[int]
    """Numbers of the samples that have no caption of the kind."""


@attrs.frozen(eq=False)
class _Pair:
    identifier: str
    cause: str = ""
    """Why it cannot be read."""
    rendered_CHW: Tensor | None = None
    caption: str | None = None


@attrs.frozen(eq=False)
class _Pairs:
    """Reads chunk ``number`` of the samples; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    transform: EncoderTransform
    indices_n: npt.NDArray[np.int64]
    weights: Mapping[str, float] | None

    def __len__(self) -> int:
        return -(-len(self.indices_n) // _CHUNK)

    def __getitem__(self, number: int) -> list[_Pair]:
        return [self._pair(index) for index in self.indices_n[number * _CHUNK : (number + 1) * _CHUNK].tolist()]

    def _pair(self, index: int) -> _Pair:
        try:
            sample = self.source.read(index)
            captions = wanted_captions(sample, self.weights)
        except UnreadableSample as failure:
            return _Pair(failure.identifier, cause=failure.cause)
        if not captions:
            return _Pair(sample.identifier)
        # A copy, because a view of the decoded image would keep the whole image in memory.
        rendered_CHW = self.transform.rendered(sample.image).clone()
        return _Pair(sample.identifier, "", rendered_CHW, next(iter(captions.values()))[0])


def require_towers(encoder: Encoder) -> None:
    """Refuse an encoder that does not embed images and texts in one space.

    Raises:
        InvalidValue: it has no text tower.
    """
    if not has_towers(encoder):
        message = f"{encoder.source.name} has no text tower: give an encoder that embeds images and texts (LiT, CLIP)"
        raise InvalidValue("filter", [("scores-by", message)])


def pair_scores(
    encoder: Encoder,
    source: OpenSource,
    indices_n: npt.NDArray[np.int64],
    *,
    kind: str | None = None,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
) -> PairScores:
    """Score samples of a source by the cosine between the image and its first caption. Memory holds a few chunks.

    Args:
        encoder: has two towers. It is moved to a GPU if there is one.
        source: what is read.
        indices_n: numbers of the samples.
        kind: kind of the captions; by default the first kind of each sample.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        InvalidValue: the encoder has no text tower.
        DataNotFound: the first samples have no caption of the kind.
        CannotScore: a score is not a number.
    """
    require_towers(encoder)
    weights = None if kind is None else {kind: 1.0}
    if not has_captions(source, weights):
        what = "no captions" if kind is None else f"no captions of kind {kind!r}"
        raise DataNotFound(f"the first samples of the source have {what}: name the captions in the source as JSON")
    encoder = encoder.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    pairs = _Pairs(source, encoder.transform, indices_n, weights)
    scores_n = np.full(len(indices_n), np.nan)
    identifiers: dict[int, str] = {}
    broken: dict[int, str] = {}
    without: set[int] = set()
    with closing(stream(pairs, range(len(pairs)), num_workers, ahead=2)) as chunks:
        for number, chunk in enumerate(chunks):
            first = number * _CHUNK
            for index, pair in zip(indices_n[first : first + _CHUNK].tolist(), chunk, strict=True):
                identifiers[index] = pair.identifier
                if pair.cause:
                    broken[index] = pair.cause
                elif pair.caption is None:
                    without.add(index)
            for places, found in _scored(encoder, pairs.transform, chunk):
                scores_n[first + np.array(places)] = found
            progress("scoring", min(first + _CHUNK, len(indices_n)), len(indices_n))
    return PairScores(scores_n, identifiers, broken, frozenset(without))


def _scored(
    encoder: Encoder, transform: EncoderTransform, chunk: list[_Pair]
) -> Iterator[tuple[list[int], npt.NDArray[np.float64]]]:
    """Yield places in the chunk with their scores; images of one size share a forward pass."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, pair in enumerate(chunk):
        if pair.rendered_CHW is not None:
            sizes.setdefault(tuple(pair.rendered_CHW.shape), []).append(place)
    for places in sizes.values():
        pixels_BCHW = transform.normalized([cast(Tensor, chunk[place].rendered_CHW) for place in places])
        images_BE = features_of(encoder, pixels_BCHW, Embedding(reads="joint"))
        texts_BE = encoder.embed_texts(_text(encoder, [str(chunk[place].caption) for place in places], images_BE))
        found_B = (images_BE.double() * texts_BE.double()).sum(1).cpu().numpy()
        if not np.isfinite(found_B).all():
            wrong = chunk[places[int(np.flatnonzero(~np.isfinite(found_B))[0])]]
            raise CannotScore(f"{encoder.source.name} gives {wrong.identifier} a score that is not a number")
        yield places, found_B


def _text(encoder: Encoder, texts: list[str], like: Tensor) -> Text:
    assert encoder.objective is not None
    assert encoder.objective.text is not None, "two towers read text"
    tokenizer, context_length = encoder.objective.text
    text = tokenizer.encode(texts, context_length)
    return Text(ids_BT=text.ids_BT.to(like.device), valid_BT=text.valid_BT.to(like.device))
