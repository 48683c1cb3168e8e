"""The blocks whose outputs a probe reads, as its user or the default chooses them."""

from __future__ import annotations

from collections.abc import Iterable

from aimcore import InvalidValue, Problem
from aimcore.contracts import limits

NUM_LAYERS = 6
"""Number of blocks whose outputs the probes of arXiv:2401.08541 average."""


def chosen_layers(layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """Return ``layers`` of a trunk of ``depth`` blocks; None means the last six, or all of a shallower trunk.

    Raises:
        InvalidValue: the trunk has fewer blocks.
    """
    if layers is None:
        return tuple(range(max(0, depth - NUM_LAYERS), depth))
    if layers and max(layers) >= depth:
        raise InvalidValue("probe", [("layers", f"the trunk has blocks 0 to {depth - 1}, got {layers}")])
    return layers


def problems_with_layers(layers: tuple[int, ...] | None) -> Iterable[Problem]:
    """Yield a problem if blocks are repeated or out of range."""
    if layers is not None and (len(set(layers)) < len(layers) or not all(layer >= 0 for layer in layers)):
        yield Problem("layers", f"must be distinct blocks, counted from 0, got {layers}")
    elif layers and max(layers) >= limits.DEPTH:
        yield Problem("layers", f"must lie below {limits.DEPTH}, got {layers}")
