"""The one pass of a filter over its source: all that is known of each sample before the choice is made.

Features and scores are computed only of samples that nothing has removed so far: not of evaluation images, and not of
samples whose pixels or hashes equal those of an earlier one.
n: samples of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from aimcore.running.evaluation_images import EvaluationImages, ImageEmbedder
from aimcore.running.filter_parts import Part
from aimcore.running.filter_reading import ReadSample
from aimcore.running.filter_steps import Filtering
from aimcore.running.pair_scores import PairScorer

NOT_SCORED, SCORED, WITHOUT_CAPTION, BROKEN_CAPTION = range(4)
"""What is known of a caption."""
NONE = -1
"""Number of the evaluation image of samples that have none."""
ROW = np.dtype(
    [
        ("index", "i8"), ("readable", "?"), ("hash", "u8"), ("digest", "u8"),
        ("like", "i8"), ("bits", "u1"),  # the evaluation image that it matches by hash, and the distance
        ("nearest", "i8"), ("similarity", "f8"),  # the evaluation image with the nearest features; NaN: not compared
        ("pair", "u1"), ("score", "f8"),
    ]
)  # fmt: skip


class SamplePass:
    """Computes the rows of chunks, which come in order."""

    def __init__(
        self,
        filtering: Filtering,
        evaluation: EvaluationImages | None,
        embedder: ImageEmbedder | None,
        scorer: PairScorer | None,
    ) -> None:
        """Take the steps, and what they need."""
        self._filtering, self._evaluation = filtering, evaluation
        self._embedder, self._scorer = embedder, scorer
        self._seen: set[tuple[bool, int]] = set()

    def remember(self, part: Part) -> None:
        """Take note of samples that an earlier call has read."""
        rows_n = part.rows_n
        self._first_of_their_kind(rows_n, np.flatnonzero(rows_n["readable"] & ~self.are_evaluation(rows_n)))

    def rows(self, samples: Sequence[ReadSample]) -> Part:
        """Return what is known of a chunk."""
        rows_n = np.zeros(len(samples), dtype=ROW)
        for name, values in {
            "index": [one.index for one in samples], "readable": [not one.cause for one in samples],
            "hash": [one.hash for one in samples], "digest": [one.digest for one in samples],
        }.items():  # fmt: skip
            rows_n[name] = values
        rows_n["like"], rows_n["nearest"], rows_n["similarity"], rows_n["score"] = NONE, NONE, np.nan, np.nan
        left = np.flatnonzero(rows_n["readable"])
        if self._evaluation is not None and len(left):
            rows_n["like"][left], rows_n["bits"][left] = self._evaluation.nearest_by_hash(
                rows_n["hash"][left], rows_n["digest"][left], self._filtering.hash_distance
            )
            left = left[rows_n["like"][left] == NONE]
        features_nE = None
        if self._embedder is not None and self._evaluation is not None and len(left):
            features_nE = self._embedder.features([samples[place] for place in left.tolist()])
            rows_n["nearest"][left], rows_n["similarity"][left] = self._evaluation.nearest_by_features(features_nE)
        is_left = ~self.are_evaluation(rows_n)[left]
        kept = self._first_of_their_kind(rows_n, left[is_left])
        if self._scorer is not None and len(kept):
            is_shared = self._embedder is not None and self._embedder.encoder is self._scorer.encoder
            known_nE = features_nE[np.searchsorted(left, kept)] if is_shared and features_nE is not None else None
            self._score(samples, rows_n, kept, known_nE)
        causes = {one.index: one.cause or one.cause_of_caption for one in samples if one.cause or one.cause_of_caption}
        return Part(rows_n, None, [one.identifier for one in samples], causes)

    def are_evaluation(self, rows_n: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which samples are evaluation images, by hash or by features."""
        found_n: npt.NDArray[np.bool_] = rows_n["like"] != NONE
        if self._filtering.similarity is not None:
            found_n = found_n | (rows_n["similarity"] >= self._filtering.similarity)  # NaN is never
        return found_n

    def _first_of_their_kind(self, rows_n: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the places of samples that equal no earlier one, and take note of them.

        Others are removed as duplicates later, whichever groups the hashes form.
        """
        if not self._filtering.deduplicate or self._scorer is None:
            return places
        kept = []
        for place in places.tolist():
            # Images of one colour have no hash. All others with equal pixels have equal hashes.
            value = int(rows_n["hash"][place])
            key = (True, value) if value else (False, int(rows_n["digest"][place]))
            if key not in self._seen:
                self._seen.add(key)
                kept.append(place)
        return np.array(kept, dtype=np.int64)

    def _score(
        self, samples: Sequence[ReadSample], rows_n: npt.NDArray[Any], places: npt.NDArray[np.int64],
        known_nE: Tensor | None,
    ) -> None:  # fmt: skip
        """Fill in the scores of samples. ``known_nE``: what the encoder makes of their images, if that is known."""
        assert self._scorer is not None
        is_broken = np.array([bool(samples[place].cause_of_caption) for place in places.tolist()])
        has_caption = np.array([samples[place].caption is not None for place in places.tolist()])
        rows_n["pair"][places] = np.where(is_broken, BROKEN_CAPTION, np.where(has_caption, SCORED, WITHOUT_CAPTION))
        if has_caption.any():
            scored = places[has_caption]
            known_nE = None if known_nE is None else known_nE[np.flatnonzero(has_caption)]
            rows_n["score"][scored] = self._scorer.scores([samples[place] for place in scored.tolist()], known_nE)
