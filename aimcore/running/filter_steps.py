"""The steps of ``aimcore data filter``: what is removed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from aimcore.contracts.component import Checked, settings, within
from aimcore.contracts.errors import AimcoreError, Problem
from aimcore.contracts.messages import shown

HASH_DISTANCE = 0
"""Default number of bits in which the perceptual hashes of duplicates differ at most."""
BROKEN, EVALUATION, DUPLICATE = "broken", "evaluation", "duplicate"
NO_CAPTION, LOW_SCORE = "no caption", "low score"
REASONS = (BROKEN, EVALUATION, DUPLICATE, NO_CAPTION, LOW_SCORE)
BY_HASH, BY_EMBEDDING = "hash", "embedding"
"""Rules by which an image matches an evaluation image."""
_BITS = 64


class NothingLeft(AimcoreError):
    """Every sample would be removed."""


@settings
class Filtering(Checked):
    """What is removed. Every step is optional; at least one is needed."""

    against: tuple[str, ...] = ()
    """Sources whose images are removed."""
    embeddings_by: str | None = None
    """The encoder whose features are compared with those of the images of ``against``."""
    similarity: float | None = None
    """Lowest cosine of features from which an image counts as one of ``against``."""
    deduplicate: bool = False
    """Keep one sample of each group of duplicates: the one with the lowest number."""
    hash_distance: int = HASH_DISTANCE
    """Number of bits of 64 in which the perceptual hashes of duplicates differ at most."""
    scores_by: str | None = None
    """The encoder that scores images and captions."""
    encoder_settings: Mapping[str, Any] = attrs.field(factory=dict)
    """Other arguments of :func:`aimcore.load_encoder`, of the only encoder."""
    keep: float | None = None
    """Share of the scored samples that is kept, the best first; rounded up to a whole number of samples."""
    min_score: float | None = None
    """Lowest score that is kept."""
    caption: str | None = None
    """Kind of the captions that are scored; by default the first kind of each sample."""

    def problems(self) -> Iterator[Problem]:
        """Yield numbers out of range, and settings of a step that does not run."""
        if not (self.against or self.deduplicate or self.scores_by or self.embeddings_by):
            yield Problem("", "nothing would be removed: give --against, --deduplicate or --scores-by")
        yield from within("hash-distance", self.hash_distance, 0, _BITS)
        yield from self._problems_of_embeddings()
        yield from self._problems_of_scores()
        yield from self._problems_of_encoder_settings()

    def _problems_of_embeddings(self) -> Iterator[Problem]:
        if self.embeddings_by is not None and not self.against:
            yield Problem("embeddings-by", "needs --against, the sources that images are compared with")
        if self.similarity is None:
            if self.embeddings_by is not None:
                message = (
                    "give the cosine from which an image is removed, such as 0.95. It depends on the encoder: "
                    "--dry-run shows which images are below and above it"
                )
                yield Problem("similarity", message)
        elif self.embeddings_by is None:
            yield Problem("similarity", "needs --embeddings-by")
        elif not -1 < self.similarity <= 1:
            yield Problem("similarity", f"must be above -1 and at most 1, got {shown(self.similarity)}")

    def _problems_of_scores(self) -> Iterator[Problem]:
        if self.scores_by is None:
            given = {"keep": self.keep, "min-score": self.min_score, "caption": self.caption}
            yield from (Problem(name, "needs --scores-by") for name, value in given.items() if value is not None)
        elif (self.keep is None) == (self.min_score is None):
            yield Problem("keep", "give either a share to keep or a lowest score, and not both")
        if self.keep is not None and not 0 < self.keep <= 1:
            yield Problem("keep", f"must be above 0 and at most 1, got {self.keep}")
        if self.min_score is not None:
            yield from within("min-score", self.min_score, -1, 1)

    def _problems_of_encoder_settings(self) -> Iterator[Problem]:
        encoders = {name for name in (self.scores_by, self.embeddings_by) if name is not None}
        if len(encoders) == 1:
            return
        message = (
            "belongs to one of two encoders, and it is not known to which: open that encoder with load_encoder, write "
            "it to a folder with its method save, and give the folder"
            if encoders
            else "needs --scores-by or --embeddings-by"
        )
        yield from (Problem(name.replace("_", "-"), message) for name in self.encoder_settings)
