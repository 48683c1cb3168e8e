"""Probes that are fitted with few labels: so many images of each class, in several draws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.randomness import smallest_hashes
from aimcore.data import hold_out

FEW_HELD_OUT = 0.2
"""Fraction of the few images on which settings are chosen: of ten images per class, two."""

PURPOSE = "few labels"
"""Purpose of the hashes. The source ``few_labels`` uses the same, and so selects the same images."""

TopByLabels = Mapping[int, tuple[float, ...]]
"""Accuracies by the number of images per class, one for each draw."""


def drawn_subset(labels: Tensor, numbers: Tensor, per_class: int, draw: int) -> Tensor:
    """Return the positions of ``per_class`` images of each class, ascending.

    Of each class, the images with the smallest hashes of (draw, number) are selected. So the subsets of a draw are
    nested, and all experiments, feature sources and probes that read the same images get the same subsets.

    Args:
        labels: class of each image, ``[n]``.
        numbers: number of each image in its source, ``[n]``.
        per_class: number of images of each class.
        draw: number of the draw.

    Raises:
        InvalidValue: a class has fewer images.

    >>> labels, numbers = torch.tensor([0, 1, 0, 1, 0, 1]), torch.arange(6)
    >>> labels[drawn_subset(labels, numbers, per_class=2, draw=0)].sort().values.tolist()
    [0, 0, 1, 1]
    """
    labels_n, numbers_n, chosen = labels.numpy(), numbers.numpy(), []
    for label in np.unique(labels_n).tolist():
        own = numbers_n[labels_n == label]
        if len(own) < per_class:
            raise InvalidValue("probe", [("probe_labels_per_class", lacking(f"class {label}", len(own), per_class))])
        chosen.append(smallest_hashes(own, per_class, draw, PURPOSE))
    return torch.from_numpy(np.flatnonzero(np.isin(numbers_n, np.concatenate(chosen))))


def lacking(which: str, available: int, per_class: int) -> str:
    """Return the message about ``which`` class, with fewer images than are asked for."""
    return (
        f"asks for {per_class} images per class, and of {which} there are {available}: ask for at most that "
        "many, or give data.probe_train more images"
    )


def split_subset(labels: Tensor, numbers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of ``chosen`` that a probe trains on, and those that it holds out."""
    kept, held_out = hold_out(labels[chosen].tolist(), numbers[chosen].tolist(), FEW_HELD_OUT)
    return chosen[torch.from_numpy(kept)], chosen[torch.from_numpy(held_out)]
