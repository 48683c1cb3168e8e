"""Which samples of a source are kept: those that no evaluation set holds, once each, with the best captions.

The steps run in this order; each looks only at what the steps before it have kept. n: samples that are left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.component import Checked, settings, within
from aimcore.contracts.errors import AimcoreError, DataNotFound, Problem
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Indices, distance, near_duplicates, nearest_of
from aimcore.encoders.encoder import Encoder
from aimcore.running.pair_scores import pair_scores
from aimcore.running.source_inspection import measure
from aimcore.running.source_measurements import Measurements

Progress = Callable[[str, int, int], None]
HASH_DISTANCE = 0
"""Default number of bits in which the perceptual hashes of duplicates differ at most."""
BROKEN, EVALUATION, DUPLICATE = "broken", "evaluation", "duplicate"
NO_CAPTION, LOW_SCORE = "no caption", "low score"
REASONS = (BROKEN, EVALUATION, DUPLICATE, NO_CAPTION, LOW_SCORE)
_BITS = 64


class NothingLeft(AimcoreError):
    """Every sample would be removed."""


@settings
class Filtering(Checked):
    """What is removed. Every step is optional; at least one is needed."""

    against: tuple[str, ...] = ()
    """Sources whose images are removed."""
    deduplicate: bool = False
    """Keep one sample of each group of duplicates: the one with the lowest number."""
    hash_distance: int = HASH_DISTANCE
    """Number of bits of 64 in which the perceptual hashes of duplicates differ at most."""
    scores_by: str | None = None
    """The encoder that scores images and captions."""
    encoder_settings: Mapping[str, Any] = attrs.field(factory=dict)
    """Other arguments of :func:`aimcore.load_encoder`."""
    keep: float | None = None
    """Share of the scored samples that is kept, the best first; rounded up to a whole number of samples."""
    min_score: float | None = None
    """Lowest score that is kept."""
    caption: str | None = None
    """Kind of the captions that are scored; by default the first kind of each sample."""

    def problems(self) -> Iterator[Problem]:
        """Yield numbers out of range, and settings of a step that does not run."""
        if not (self.against or self.deduplicate or self.scores_by):
            yield Problem("", "nothing would be removed: give --against, --deduplicate or --scores-by")
        yield from within("hash-distance", self.hash_distance, 0, _BITS)
        if self.scores_by is None:
            settings_of_encoder = {name.replace("_", "-"): value for name, value in self.encoder_settings.items()}
            given = {"keep": self.keep, "min-score": self.min_score, "caption": self.caption, **settings_of_encoder}
            yield from (Problem(name, "needs --scores-by") for name, value in given.items() if value is not None)
        elif (self.keep is None) == (self.min_score is None):
            yield Problem("keep", "give either a share to keep or a lowest score, and not both")
        if self.keep is not None and not 0 < self.keep <= 1:
            yield Problem("keep", f"must be above 0 and at most 1, got {self.keep}")
        if self.min_score is not None:
            yield from within("min-score", self.min_score, -1, 1)


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
    scores: Mapping[str, float | int] | None
    """Numbers of scored and kept samples, and ``threshold``: the lowest score that is kept."""

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
    encoder: Encoder | None = None,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
) -> Filtered:
    """Choose the samples that are kept. Every image is read once, and again if it is scored.

    About 200 bytes are held of each sample, and what is reported of those that are removed.

    Args:
        source: what is filtered.
        filtering: the steps.
        evaluation_sets: the sources ``filtering.against``, by their names.
        encoder: the encoder ``filtering.scores_by``.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        InvalidValue: the encoder has no text tower.
        DataNotFound: the source has no samples, or no captions.
        NothingLeft: every sample would be removed.
    """
    if not len(source):
        raise DataNotFound("the source has no samples")
    work = _Work(len(source), num_workers, progress)
    if evaluation_sets or filtering.deduplicate:
        work.hash(source)
        for name, one in evaluation_sets.items():
            work.remove_evaluation(name, one, filtering.hash_distance)
        if filtering.deduplicate:
            work.remove_duplicates(filtering.hash_distance)
    if encoder is not None:
        work.remove_low_scores(source, encoder, filtering)
    return work.finished()


class _Work:
    """The samples that are left, and why the others were removed."""

    def __init__(self, num_samples: int, num_workers: int, progress: Progress) -> None:
        self.num_samples, self.num_workers, self.progress = num_samples, num_workers, progress
        self.left = np.ones(num_samples, dtype=np.bool_)
        self.removed: dict[int, dict[str, Any]] = {}
        self.evaluation_sets: dict[str, dict[str, int]] = {}
        self.scores: dict[str, float | int] | None = None
        self.measured: Measurements

    def remove(self, index: int, identifier: str, reason: str, **about: Any) -> None:
        self.left[index] = False
        self.removed[index] = {"index": index, "identifier": identifier, "reason": reason, **about}

    def hash(self, source: OpenSource) -> None:
        """Read all samples; those that cannot be read are removed."""
        self.measured = measure(source, self.num_workers, self.progress)
        for one in self.measured.broken:
            self.remove(one.index, one.identifier, BROKEN, cause=one.cause)

    def remove_evaluation(self, name: str, source: OpenSource, most_bits: int) -> None:
        """Remove the samples that match an image of ``source``."""
        if not len(source):
            raise DataNotFound(f"{name} has no samples")
        other = measure(source, self.num_workers, self.progress, f"reading {name}")
        self.evaluation_sets[name] = {"num_samples": len(source), "num_broken": len(other.broken)}
        positions_n = self._positions()
        for places_n, match_n in _matches(self.measured.rows_n[positions_n], other.rows_n, most_bits):
            for position, match in zip(positions_n[places_n].tolist(), match_n.tolist(), strict=True):
                bits = int(distance(self.measured.rows_n["hash"][position], other.rows_n["hash"][match]))
                like: dict[str, Any] = {"source": name, "like": other.identifiers[match], "distance": bits}
                self.remove(*self._named(position), EVALUATION, **like)

    def remove_duplicates(self, most_bits: int) -> None:
        """Remove all samples of each group of duplicates but the one with the lowest number."""
        positions_n = self._positions()
        self.progress("comparing", 0, 1)
        stands_n = stand_ins(self.measured.rows_n[positions_n], most_bits)
        self.progress("comparing", 1, 1)
        for place in np.flatnonzero(stands_n != np.arange(len(stands_n))).tolist():
            position, like = int(positions_n[place]), int(positions_n[stands_n[place]])
            hashes = self.measured.rows_n["hash"]
            about: dict[str, Any] = {
                "like": self.measured.identifiers[like],
                "distance": int(distance(hashes[position], hashes[like])),
            }
            self.remove(*self._named(position), DUPLICATE, **about)

    def remove_low_scores(self, source: OpenSource, encoder: Encoder, filtering: Filtering) -> None:
        """Remove the samples with the lowest scores, and those that have none."""
        indices_n = np.flatnonzero(self.left)
        found = pair_scores(
            encoder, source, indices_n, kind=filtering.caption, num_workers=self.num_workers, progress=self.progress
        )
        for index, cause in found.broken.items():
            self.remove(index, found.identifiers[index], BROKEN, cause=cause)
        for index in found.without_caption:
            self.remove(index, found.identifiers[index], NO_CAPTION)
        is_scored = ~np.isnan(found.scores_n)
        indices_n, scores_n = indices_n[is_scored], found.scores_n[is_scored]
        if filtering.keep is not None:
            chosen_n = best(scores_n, num_kept(len(scores_n), filtering.keep))
        else:
            assert filtering.min_score is not None
            chosen_n = scores_n >= filtering.min_score
        for index, score in zip(indices_n[~chosen_n].tolist(), scores_n[~chosen_n].tolist(), strict=True):
            self.remove(index, found.identifiers[index], LOW_SCORE, score=score)
        if chosen_n.any():
            threshold = float(scores_n[chosen_n].min())
            num_ties = int((scores_n[~chosen_n] == threshold).sum())
            self.scores = {
                "num_scored": len(scores_n), "num_kept": int(chosen_n.sum()), "threshold": threshold,
                "num_removed_at_threshold": num_ties,
            }  # fmt: skip

    def finished(self) -> Filtered:
        kept_n = np.flatnonzero(self.left)
        removed = [self.removed[index] for index in sorted(self.removed)]
        done = Filtered(self.num_samples, kept_n, removed, self.evaluation_sets, self.scores)
        if not len(kept_n):
            counts = ", ".join(f"{count:,} {reason}" for reason, count in done.counts().items())
            raise NothingLeft(f"all {self.num_samples:,} samples would be removed ({counts}), so nothing is written")
        return done

    def _positions(self) -> Indices:
        """Return the positions in the measurements of the samples that are left."""
        return np.flatnonzero(self.left[self.measured.rows_n["index"]])

    def _named(self, position: int) -> tuple[int, str]:
        return int(self.measured.rows_n["index"][position]), self.measured.identifiers[position]


def _matches(rows_n: Any, others_m: Any, most_bits: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield places of images, with the places of the other images that they match."""
    # Hashes of images of one colour are all 0, so only their pixels are compared.
    plain_n, plain_m = np.flatnonzero(rows_n["hash"] == 0), np.flatnonzero(others_m["hash"] == 0)
    digests, first = np.unique(others_m["digest"][plain_m], return_index=True)
    if len(digests) and len(plain_n):
        found_n = np.minimum(np.searchsorted(digests, rows_n["digest"][plain_n]), len(digests) - 1)
        equal_n = digests[found_n] == rows_n["digest"][plain_n]
        yield plain_n[equal_n], plain_m[first[found_n[equal_n]]]
    varied_n, varied_m = np.flatnonzero(rows_n["hash"]), np.flatnonzero(others_m["hash"])
    if len(varied_n) and len(varied_m):
        nearest_n, bits_n = nearest_of(rows_n["hash"][varied_n], others_m["hash"][varied_m])
        near_n = bits_n <= most_bits
        yield varied_n[near_n], varied_m[nearest_n[near_n]]


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
