"""Losses, labelled features and scores: what a run measures.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
from torch import Tensor


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
        _warn_of_place()
        return self.scored_patch_BN


def _warn_of_place() -> None:
    message = "Loss.place_BN is now Loss.scored_patch_BN, and the old name will be gone in aimcore 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def _accepting_place(new: Callable[..., Loss]) -> Callable[..., Loss]:
    """``Loss.__new__`` that also takes ``place_BN``, the old name of ``scored_patch_BN``."""

    def made(cls: type[Loss], *values: Any, **named: Any) -> Loss:
        if "place_BN" in named:
            _warn_of_place()
            named["scored_patch_BN"] = named.pop("place_BN")
        return new(cls, *values, **named)

    return made


Loss.__new__ = _accepting_place(Loss.__new__)  # type: ignore[method-assign,assignment]  # a NamedTuple may define none


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
