"""Losses, labelled features and scores: what a run measures.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs
from torch import Tensor

from aimcore.contracts.old_names import accepts_old_keyword, warn_of_old_name


class Loss(NamedTuple):
    """A loss as a sum and a count, so that ranks and accumulation steps add up exactly.

    ``sum``: scalar, the sum over scored targets. ``num_targets``: scalar, their number. ``weight``: its share in the
    total (total = sum over losses of weight * global sum / global num_targets). ``per_position_BN``: the loss
    of the target at each step of the reading order, NaN where nothing is scored; it adds up to ``sum``. Without it,
    nothing can be said per step, and causality cannot be checked. ``scored_patch_BN``: raster index of the patch that
    each step scores, int64 (any number where nothing is scored). It is needed only where targets depend on more than
    that patch, as the tokens of a teacher do: causality is then judged by the patch, otherwise by all that the target
    depends on.
    """

    sum: Tensor
    """Scalar tensor."""
    num_targets: Tensor
    """Scalar tensor."""
    weight: float = 1.0
    """Share in the total."""
    per_position_BN: Tensor | None = None
    """Loss at each step, NaN where nothing is scored."""
    scored_patch_BN: Tensor | None = None
    """Raster index of the patch that each step scores."""

    @property
    def place_BN(self) -> Tensor | None:
        """Old name of ``scored_patch_BN``, until 0.3."""
        warn_of_old_name("Loss", "place_BN", "scored_patch_BN")
        return self.scored_patch_BN


Loss.__new__ = accepts_old_keyword(Loss.__new__, "Loss", "place_BN", "scored_patch_BN")  # type: ignore[method-assign]


@attrs.frozen(eq=False)
class LabelledFeatures:
    """Frozen features for a probe: ``[n, D]`` pooled or ``[n, N, D]`` tokens, with ``labels [n]``.

    Tokens of padding that is masked are NaN in all their values (see ``Probe.reads_padding``).
    """

    features: Tensor
    labels: Tensor
    num_classes: int


@attrs.frozen
class Score:
    """A measured share, such as an accuracy or a recall."""

    value: float
    """A fraction."""
    num: int
    """How many things were judged."""
    chance: float | None = None
    """What guessing would give, where that is known."""
    ci95: tuple[float, float] | None = None
    """Ends of the 95 % interval."""
