"""Outcomes of fitted probes on the test images.

Lower-case n is the number of test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from aimcore.contracts.probes import FittedProbe, Probe
from aimcore.data import hold_out
from aimcore.evaluation.feature_keys import key_of
from aimcore.evaluation.feature_tables import Table
from aimcore.evaluation.few_labels import TopByLabels
from aimcore.evaluation.probe_images import ProbeImages, probe_sources
from aimcore.evaluation.protocol_cards import HELD_OUT
from aimcore.recipe.writing import plain


@attrs.frozen
class Outcome:
    """The score of one fitted probe on the test images, and the settings that it chose."""

    right_n: Tensor = attrs.field(eq=attrs.cmp_using(eq=torch.equal))
    """Whether each test image was classified correctly, ``[n]`` bool, ascending by number."""
    choice: Mapping[str, Any]
    sizes: Mapping[str, int]
    """Images in each split: ``"train"``, ``"held_out"``, ``"test"``."""
    test_images: str
    """Digest of the test source and of the numbers of its readable images."""
    by_labels: TopByLabels = attrs.field(factory=dict)
    """Accuracies of the same probe with few labels, by ``probe_labels_per_class``, one for each draw."""

    @property
    def top1(self) -> float:
        """Fraction of test images that are classified correctly."""
        return self.num_correct / self.sizes["test"]

    @property
    def num_correct(self) -> int:
        """Number of test images that are classified correctly."""
        return int(self.right_n.sum())


def fitted_outcome(images: ProbeImages, probe: Probe, train: Table, test: Table) -> tuple[Outcome, FittedProbe, Tensor]:
    """Fit ``probe`` on ``train`` without the held-out images, and test it.

    Returns:
        The outcome, the fitted probe, and the positions of the held-out images in ``train``.
    """
    kept, held_out = split_of(probe, train)
    fitted = train.fit(probe, kept, held_out, images.experiment.seed)
    sizes = {"train": len(kept), "held_out": len(held_out), "test": len(test.labels)}
    return Outcome(test.correct(fitted), fitted.choice, sizes, _digest(images, test)), fitted, held_out


def split_of(probe: Probe, train: Table) -> tuple[Tensor, Tensor]:
    """Return the positions of the training images and of the held-out ones."""
    if not probe.holds_out:
        return torch.arange(len(train.labels)), torch.arange(0)
    kept, held_out = hold_out(train.labels.tolist(), train.numbers.tolist(), HELD_OUT)
    return torch.from_numpy(kept), torch.from_numpy(held_out)


def _digest(images: ProbeImages, test: Table) -> str:
    """Return a digest of the test source and of the numbers of the images in ``test``: 32 hexadecimal digits."""
    _, source = probe_sources(images.experiment)
    return key_of({"source": plain(source), "numbers": test.numbers.tolist()})
