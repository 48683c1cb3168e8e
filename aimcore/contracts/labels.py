"""Checks of labels: before training for sources that know all labels, otherwise when samples are read."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np

from aimcore.contracts.batches import Batch, Sample
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.sources import OpenSource

_SHOWN = 3


def label_problems(source: OpenSource, num_classes: int, *, all_labelled: bool) -> Iterator[str]:
    """Yield problems of the labels that ``source`` knows without reading images.

    Args:
        source: an open source; if its ``known_labels()`` is None, nothing is checked.
        num_classes: number of classes; labels must be smaller.
        all_labelled: whether every image must have a label.
    """
    labels_n = source.known_labels()
    if labels_n is None:
        return
    unlabelled = np.flatnonzero(labels_n == -1)
    if all_labelled and len(unlabelled):
        yield f"{len(unlabelled):,} of {len(labels_n):,} images have no label, the first at index {unlabelled[0]}"
    wrong = np.flatnonzero((labels_n < -1) | (labels_n >= num_classes))
    if len(wrong):
        shown = ", ".join(f"{labels_n[index]} at index {index}" for index in wrong[:_SHOWN])
        more = ", ..." if len(wrong) > _SHOWN else ""
        yield f"labels must lie from 0 to {num_classes - 1}, and {len(wrong):,} do not: {shown}{more}"


def label_of(sample: Sample) -> int | None:
    """Return the label of a sample.

    Raises:
        InvalidLabel: the label is neither None nor a non-negative integer.
    """
    label: Any = sample.label  # a source may break its contract
    if label is None:
        return None
    if isinstance(label, bool) or not isinstance(label, Integral) or not 0 <= int(label) < 2**63:
        raise InvalidLabel(
            f"sample {sample.identifier} has the label {label!r:.80}: labels must be non-negative integers or None"
        )
    return int(label)


def require_classes(batch: Batch, num_classes: int) -> None:
    """Check that the labels of a batch are from 0 to ``num_classes - 1``; a batch without labels passes.

    Raises:
        InvalidLabel: a label is out of range; the message names the samples.
    """
    labels_B = batch.labels_B
    if labels_B is None or labels_B.is_meta:
        return
    wrong_B = (labels_B < 0) | (labels_B >= num_classes)
    if bool(wrong_B.any()):
        wrong = wrong_B.nonzero()[:, 0].tolist()
        names = batch.extras.get("identifiers") or batch.sample_numbers_B.tolist()
        shown = ", ".join(f"{int(labels_B[row])} of sample {names[row]}" for row in wrong[:_SHOWN])
        more = ", ..." if len(wrong) > _SHOWN else ""
        raise InvalidLabel(
            f"labels must lie from 0 to {num_classes - 1}, and {len(wrong)} of {len(labels_B)} in this batch do not: "
            f"{shown}{more}"
        )
