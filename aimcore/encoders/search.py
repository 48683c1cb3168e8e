"""Search: the rows of stored embeddings that are most similar to a query.

Shape suffixes: D width; lower-case k is the number of neighbours.
"""

from __future__ import annotations

import heapq

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import AimcoreError
from aimcore.encoders.stored_embeddings import NO_LABEL, EmbeddedRows, StoredEmbeddings


class CannotSearch(AimcoreError):
    """The embeddings cannot be compared with the query."""


@attrs.frozen(order=True)
class Neighbour:
    """A row of the embeddings."""

    similarity: float
    """Cosine of the angle to the query."""
    row: int
    identifier: str
    label: int | None


def nearest(store: StoredEmbeddings, query_D: npt.NDArray[np.float32], number: int) -> list[Neighbour]:
    """Return the ``number`` rows with the largest cosine similarity to ``query_D``, most similar first.

    Rows are read part by part. Images that could not be read are never found.

    Raises:
        CannotSearch: the embeddings are tokens, or of another width.
        DataNotFound: a part is damaged.
    """
    if store.width != len(query_D):
        what = "tokens, and a search compares one vector per image" if store.width is None else f"of {store.width}"
        raise CannotSearch(f"{store.url} holds embeddings {what}: the query has {len(query_D)} numbers")
    unit_D = query_D / max(float(np.linalg.norm(query_D)), 1e-12)
    best: list[tuple[float, int, Neighbour]] = []
    first = 0
    for rows in store.parts():
        for place, similarity in _similarities(rows, unit_D):
            row = first + place
            candidate = (similarity, -row, _neighbour(rows, place, row, similarity))
            if len(best) < number:
                heapq.heappush(best, candidate)
            elif candidate[:2] > best[0][:2]:
                heapq.heapreplace(best, candidate)
        first += len(rows.features)
    return [neighbour for _, _, neighbour in sorted(best, key=lambda one: one[:2], reverse=True)]


def _similarities(rows: EmbeddedRows, unit_D: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
    features_nD = rows.features.astype(np.float32)
    lengths_n = np.maximum(np.linalg.norm(features_nD, axis=1), 1e-12)
    found_n = features_nD @ unit_D / lengths_n
    return [(int(place), float(found_n[place])) for place in np.flatnonzero(rows.readable)]


def _neighbour(rows: EmbeddedRows, place: int, row: int, similarity: float) -> Neighbour:
    label = int(rows.labels[place])
    return Neighbour(similarity, row, rows.identifiers[place], None if label == NO_LABEL else label)
