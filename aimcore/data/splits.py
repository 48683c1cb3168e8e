"""Held-out samples, chosen by hash, so that the choice depends neither on the order nor on chance."""

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def hold_out(labels: Sequence[int], identifiers: Sequence[Hashable], share: float = 0.1) -> tuple[Indices, Indices]:
    """Split samples in two, class by class, by the hash of their identifiers.

    Of every class with at least two samples, at least one is held out and at least one kept; a class of one is kept.
    The choice depends on the identifiers alone, not on their order. A source reads its samples in a fixed order, so
    ``range(len(source))`` are identifiers that cost nothing.

    Args:
        labels: class of each sample.
        identifiers: what names each sample; their ``str`` is hashed.
        share: share of each class that is held out, rounded to the nearest count.

    Returns:
        Positions that stay and positions held out, both ascending.

    Raises:
        ValueError: labels and identifiers differ in length, or the share lies outside (0, 1).
    """
    if len(labels) != len(identifiers):
        raise ValueError(f"{len(labels)} labels for {len(identifiers)} identifiers: give one of each per sample")
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, both excluded, got {share}")
    held_out = np.zeros(len(labels), dtype=bool)
    by_class: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        by_class.setdefault(int(label), []).append(position)
    for positions in by_class.values():
        ranked = sorted(positions, key=lambda position: _rank(identifiers[position]))
        count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
        held_out[ranked[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _rank(identifier: Hashable) -> tuple[bytes, str]:
    text = str(identifier)
    return hashlib.blake2b(text.encode(), digest_size=8).digest(), text
