"""Votes of the nearest neighbours.

Shape suffixes: T training images, Q images to classify, K neighbours, C classes, D width.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from aimcore import FittedProbe, InvalidValue, LabelledFeatures

_SIMILARITIES = 2**24
"""Largest number of similarities in memory: 64 MiB."""


@attrs.frozen(eq=False)
class FittedNeighbours(FittedProbe):
    """Training images as unit vectors, in their order."""

    bank_TD: Tensor
    labels_T: Tensor
    num_classes: int
    k: int
    temperature: float | None
    choice: dict[str, Any]

    def predict(self, features: Tensor) -> Tensor:
        """``[n]`` classes for features ``[n, D]``; similarities are computed for a few images at a time."""
        unit_QD = functional.normalize(features.float(), dim=1)
        part = max(1, _SIMILARITIES // len(self.bank_TD))
        return torch.cat([self._votes(queries_QD).argmax(1) for queries_QD in torch.split(unit_QD, part)])

    def _votes(self, queries_QD: Tensor) -> Tensor:
        """``[Q, C]`` votes; of equal votes ``argmax`` gives the first class."""
        similarity_QK, index_QK = nearest(queries_QD @ self.bank_TD.T, self.k)
        # Relative to the best similarity: the votes are the same up to a factor, and exp cannot overflow.
        relative_QK = similarity_QK - similarity_QK[:, :1]
        weight_QK = torch.ones_like(relative_QK) if self.temperature is None else (relative_QK / self.temperature).exp()
        votes_QC = torch.zeros(len(queries_QD), self.num_classes, dtype=torch.float64)
        return votes_QC.scatter_add_(1, self.labels_T[index_QK], weight_QK.double())


def fit_neighbours(train: LabelledFeatures, k: int, temperature: float | None) -> FittedNeighbours:
    """Store ``train``.

    Raises:
        InvalidValue: there is no training image, or labels are not classes.
    """
    labels = train.labels
    if not len(labels):
        raise InvalidValue("probe", [("train", "neighbours need training images, got none")])
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= train.num_classes:
        raise InvalidValue(
            "probe", [("train", f"labels must lie in [0, {train.num_classes - 1}], got {low} to {high}")]
        )
    bank_TD = functional.normalize(train.features.float(), dim=1)
    k = min(k, len(labels))
    choice = {"num_neighbours": k, "similarity": "cosine", "vote": _vote(temperature)}
    return FittedNeighbours(bank_TD, labels, train.num_classes, k, temperature, choice)


def _vote(temperature: float | None) -> str:
    return "one each" if temperature is None else f"exp(similarity / {temperature:g})"


def nearest(similarity_QT: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest values of each row, descending, and their indices; of equal values the earlier ones.

    ``topk`` does not specify which of equal values it takes. That matters only if the last value taken also occurs
    among the others; only such rows are sorted.
    """
    value_QK, index_QK = similarity_QT.topk(k)
    tied_Q = (similarity_QT >= value_QK[:, -1:]).sum(1) > k
    if bool(tied_Q.any()):
        value, index = similarity_QT[tied_Q].sort(dim=1, descending=True, stable=True)
        value_QK[tied_Q], index_QK[tied_Q] = value[:, :k], index[:, :k]
    return value_QK, index_QK
