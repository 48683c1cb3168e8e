"""Losses, labelled features and scores: the measurements of a run.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
from torch import Tensor

from aimcore.contracts.old_names import accepts_old_keyword, warn_of_old_name


class Loss(NamedTuple):
    """A loss as a sum and a count, which add up exactly over ranks and micro-batches.

    The total that is minimised is the sum over losses of weight * global sum / global num_targets. Without
    ``per_position_BN`` there are no losses per chunk, and causality cannot be checked. ``scored_patch_BN`` is required
    only if targets depend on more than the scored patch, as the tokens of a teacher do: the causality check then
    compares a prediction with that patch, otherwise with all patches that its target depends on.
    """

    sum: Tensor
    """Scalar: the sum over scored targets."""
    num_targets: Tensor
    """Scalar: the number of scored targets."""
    weight: float = 1.0
    """Weight of this loss in the total."""
    per_position_BN: Tensor | None = None
    """Loss at each step of the reading order, NaN where nothing is scored; it adds up to ``sum``."""
    scored_patch_BN: Tensor | None = None
    """Raster index of the patch that each step scores, int64 (arbitrary where nothing is scored)."""

    @property
    def place_BN(self) -> Tensor | None:
        """Old name of ``scored_patch_BN``, until 0.3."""
        warn_of_old_name("Loss", "place_BN", "scored_patch_BN")
        return self.scored_patch_BN


Loss.__new__ = accepts_old_keyword(Loss.__new__, "Loss", "place_BN", "scored_patch_BN")  # type: ignore[method-assign]


@attrs.frozen(eq=False)
class LabelledFeatures:
    """Frozen features for a probe: ``[n, D]`` pooled or ``[n, N, D]`` tokens, with ``labels [n]``.

    All values of tokens of masked padding are NaN (see ``Probe.reads_padding``).
    """

    features: Tensor
    labels: Tensor
    num_classes: int


@attrs.frozen
class Score:
    """A measured fraction, such as an accuracy or a recall."""

    value: float
    """The fraction, from 0 to 1."""
    num: int
    """Number of examples that it was measured on."""
    chance: float | None = None
    """Expected score of random guesses, if it is known."""
    ci95: tuple[float, float] | None = None
    """Bounds of the 95 % confidence interval."""
