"""Which samples of a source are kept: those that no evaluation set holds, once each, with the best captions.

The steps run in this order; each looks only at what the steps before it have kept. n: samples that are left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Indices, distance, near_duplicates
from aimcore.encoders.encoder import Encoder
from aimcore.running.evaluation_images import EvaluationImages, ImageEmbedder, evaluation_images
from aimcore.running.filter_parts import Part, PartStore, Progress, parts_of
from aimcore.running.filter_pass import BROKEN_CAPTION, NONE, SCORED, WITHOUT_CAPTION, SamplePass
from aimcore.running.filter_reading import SampleReader
from aimcore.running.filter_steps import (
    BROKEN,
    BY_EMBEDDING,
    BY_HASH,
    DUPLICATE,
    EVALUATION,
    LOW_SCORE,
    NO_CAPTION,
    REASONS,
    Filtering,
    NothingLeft,
)
from aimcore.running.pair_scores import PairScorer, weights_of

NUM_EXAMPLES = 24
"""Number of kept samples of each kind that a report names: the best scores, the nearest to evaluation images, ..."""


@attrs.frozen(eq=False)
class Filtered:
    """What was kept, and why everything else was removed."""

    num_samples: int
    kept_n: Indices
    """Numbers of the samples that are kept, ascending."""
    removed: Sequence[Mapping[str, Any]]
    """Samples that are removed, by number: ``index``, ``identifier``, ``reason``, and what else is known."""
    evaluation_sets: Mapping[str, Mapping[str, int]]
    """Of each source to compare with: ``num_samples`` and ``num_broken``."""
    similarities: Mapping[str, Any] | None
    """Numbers of samples whose features were compared and that are removed by them, ``threshold``, and
    ``nearest_kept``: the kept samples that are most similar to an evaluation image."""
    scores: Mapping[str, Any] | None
    """Numbers of scored and kept samples, ``threshold``: the lowest score that is kept, and the samples ``best`` and
    ``lowest_kept``."""

    def counts(self) -> dict[str, int]:
        """Return the number of removed samples by reason."""
        found = Counter(one["reason"] for one in self.removed)
        return {reason: found[reason] for reason in REASONS if found[reason]}


def num_kept(number: int, share: float) -> int:
    """Return how many of ``number`` samples are kept: the share as it is written, rounded up.

    >>> num_kept(100, 0.15), num_kept(100, 0.07), num_kept(3, 0.15)
    (15, 7, 1)
    """
    return math.ceil(Decimal(str(share)) * number)


def best(scores_n: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.bool_]:
    """Return which of the scores are the ``number`` best; of equal scores the first ones.

    >>> best(np.array([0.5, 0.9, 0.5, 0.1]), 2).tolist()
    [True, True, False, False]
    """
    chosen_n = np.zeros(len(scores_n), dtype=np.bool_)
    chosen_n[np.argsort(-scores_n, kind="stable")[:number]] = True
    return chosen_n


def filter_source(
    source: OpenSource,
    filtering: Filtering,
    *,
    evaluation_sets: Mapping[str, OpenSource],
    embeddings_by: Encoder | None = None,
    scores_by: Encoder | None = None,
    store: PartStore | None = None,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
) -> Filtered:
    """Choose the samples that are kept. Every image is read once.

    About 300 bytes are held of each sample, what is reported of those that are removed, and the features of evaluation
    images. Of the source, a few batches are held.

    Args:
        source: what is filtered.
        filtering: the steps.
        evaluation_sets: the sources ``filtering.against``, by their names.
        embeddings_by: the encoder ``filtering.embeddings_by``.
        scores_by: the encoder ``filtering.scores_by``.
        store: has what earlier calls have found out, and takes what this one does.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        InvalidValue: the encoder of scores has no text tower.
        DataNotFound: a source has no samples, or no image of an evaluation set can be read.
        CannotCompare: features are not numbers.
        CannotScore: a score is not a number.
        NothingLeft: every sample would be removed.
    """
    store = store or PartStore()
    require_samples(source, evaluation_sets)
    scorer = None if scores_by is None else PairScorer(scores_by)
    embedder = None if embeddings_by is None else ImageEmbedder(embeddings_by)
    evaluation = None
    if evaluation_sets:
        evaluation = evaluation_images(evaluation_sets, embedder, store, num_workers=num_workers, progress=progress)
    one_pass = SamplePass(filtering, evaluation, embedder, scorer)
    reader = SampleReader(
        source,
        is_hashed=bool(evaluation_sets or filtering.deduplicate),
        embeds=None if embedder is None else embedder.transform,
        scores=None if scorer is None else scorer.transform,
        weights=weights_of(filtering.caption),
    )
    found = parts_of(
        store, "source", reader, one_pass.rows, remember=one_pass.remember, num_workers=num_workers, progress=progress
    )
    choice = _Choice(found, filtering, evaluation)
    choice.remove_evaluation(one_pass.are_evaluation(found.rows_n))
    if filtering.deduplicate:
        progress("comparing", 0, 1)
        choice.remove_duplicates()
        progress("comparing", 1, 1)
    if scorer is not None:
        choice.remove_low_scores()
    return choice.finished()


def require_samples(source: OpenSource, evaluation_sets: Mapping[str, OpenSource]) -> None:
    """Refuse sources without samples.

    Raises:
        DataNotFound: one of them has none.
    """
    for name, one in {"the source": source, **evaluation_sets}.items():
        if not len(one):
            raise DataNotFound(f"{name} has no samples")


class _Choice:
    """The samples that are left, and why the others were removed."""

    def __init__(self, found: Part, filtering: Filtering, evaluation: EvaluationImages | None) -> None:
        self.found, self.rows_n = found, found.rows_n
        self.filtering, self.evaluation = filtering, evaluation
        self.left_n: npt.NDArray[np.bool_] = self.rows_n["readable"].copy()
        self.removed: dict[int, dict[str, Any]] = {}
        self.threshold: float | None = None
        for index in np.flatnonzero(~self.left_n).tolist():
            self.remove(index, BROKEN, cause=found.causes[index])

    def remove(self, index: int, reason: str, **about: Any) -> None:
        self.left_n[index] = False
        self.removed[index] = {**self._named(index), "reason": reason, **about}

    def remove_evaluation(self, are_evaluation_n: npt.NDArray[np.bool_]) -> None:
        """Remove the samples that match an evaluation image."""
        for index in np.flatnonzero(are_evaluation_n).tolist():
            row = self.rows_n[index]
            if row["like"] != NONE:
                about = {"rule": BY_HASH, **self._evaluation_image(row["like"]), "distance": int(row["bits"])}
            else:
                about = {"rule": BY_EMBEDDING, **self._nearest(index)}
            self.remove(index, EVALUATION, **about)

    def remove_duplicates(self) -> None:
        """Remove all samples of each group of duplicates but the one with the lowest number."""
        indices_n, hashes = np.flatnonzero(self.left_n), self.rows_n["hash"]
        stands_n = stand_ins(self.rows_n[indices_n], self.filtering.hash_distance)
        for place in np.flatnonzero(stands_n != np.arange(len(stands_n))).tolist():
            index, like = int(indices_n[place]), int(indices_n[stands_n[place]])
            bits = int(distance(hashes[index], hashes[like]))
            self.remove(index, DUPLICATE, like=self.found.identifiers[like], like_index=like, distance=bits)

    def remove_low_scores(self) -> None:
        """Remove the samples with the lowest scores, and those that have none."""
        pair_n = self.rows_n["pair"]
        for index in np.flatnonzero(self.left_n & (pair_n == BROKEN_CAPTION)).tolist():
            self.remove(index, BROKEN, cause=self.found.causes[index])
        for index in np.flatnonzero(self.left_n & (pair_n == WITHOUT_CAPTION)).tolist():
            self.remove(index, NO_CAPTION)
        indices_n = np.flatnonzero(self.left_n)
        assert (pair_n[indices_n] == SCORED).all(), "only samples that are certain to be removed have no score"
        scores_n = self.rows_n["score"][indices_n]
        if self.filtering.keep is not None:
            chosen_n = best(scores_n, num_kept(len(scores_n), self.filtering.keep))
        else:
            chosen_n = scores_n >= self.filtering.min_score
        for index, score in zip(indices_n[~chosen_n].tolist(), scores_n[~chosen_n].tolist(), strict=True):
            self.remove(index, LOW_SCORE, score=score)
        if chosen_n.any():
            self.threshold = float(scores_n[chosen_n].min())

    def finished(self) -> Filtered:
        kept_n = np.flatnonzero(self.left_n)
        removed = [self.removed[index] for index in sorted(self.removed)]
        sets = {} if self.evaluation is None else self.evaluation.counts
        done = Filtered(len(self.rows_n), kept_n, removed, sets, self._similarities(kept_n), self._scores(kept_n))
        if not len(kept_n):
            counts = ", ".join(f"{count:,} {reason}" for reason, count in done.counts().items())
            raise NothingLeft(f"all {len(self.rows_n):,} samples would be removed ({counts}), so nothing is written")
        return done

    def _similarities(self, kept_n: Indices) -> Mapping[str, Any] | None:
        if self.filtering.similarity is None:
            return None
        order_n = kept_n[np.argsort(-self.rows_n["similarity"][kept_n], kind="stable")]
        return {
            "threshold": self.filtering.similarity,
            "num_compared": int((self.rows_n["nearest"] != NONE).sum()),
            "num_removed": sum(one.get("rule") == BY_EMBEDDING for one in self.removed.values()),
            "nearest_kept": [
                {**self._named(index), **self._nearest(index)} for index in order_n[:NUM_EXAMPLES].tolist()
            ],
        }

    def _scores(self, kept_n: Indices) -> Mapping[str, Any] | None:
        if self.threshold is None:
            return None
        low = [one["score"] for one in self.removed.values() if one["reason"] == LOW_SCORE]
        order_n = kept_n[np.argsort(-self.rows_n["score"][kept_n], kind="stable")]
        return {
            "num_scored": len(kept_n) + len(low),
            "num_kept": len(kept_n),
            "threshold": self.threshold,
            "num_removed_at_threshold": low.count(self.threshold),
            "best": [self._with_score(index) for index in order_n[:NUM_EXAMPLES].tolist()],
            "lowest_kept": [self._with_score(index) for index in order_n[::-1][:NUM_EXAMPLES].tolist()],
        }

    def _named(self, index: int) -> dict[str, Any]:
        return {"index": index, "identifier": self.found.identifiers[index]}

    def _with_score(self, index: int) -> dict[str, Any]:
        return {**self._named(index), "score": float(self.rows_n["score"][index])}

    def _nearest(self, index: int) -> dict[str, Any]:
        row = self.rows_n[index]
        return {**self._evaluation_image(row["nearest"]), "similarity": float(row["similarity"])}

    def _evaluation_image(self, number: int) -> dict[str, Any]:
        """Return what is reported of an evaluation image."""
        sets = self.evaluation
        assert sets is not None
        name, like = sets.names[int(sets.set_m[number])], sets.identifiers[int(number)]
        return {"source": name, "like": like, "like_index": int(sets.index_m[number])}


def stand_ins(rows_n: Any, most_bits: int) -> Indices:
    """Return for each image the place of the first image of its group: its own if it is the first or the only one.

    Images with equal pixels are of one group, and so are those whose hashes differ in at most ``most_bits`` bits from
    another one of the group. Images of one colour have no hash, so only their pixels are compared.
    """
    _, first_u, which_n = np.unique(rows_n["digest"], return_index=True, return_inverse=True)
    stands_n: Indices = np.arange(len(rows_n))
    distinct = np.sort(first_u[rows_n["hash"][first_u] != 0])
    for group in near_duplicates(rows_n["hash"][distinct], most_bits):
        stands_n[distinct[group]] = distinct[group[0]]
    return stands_n[first_u[which_n]]
