"""Rows of the table of ``accelerator.py``: what was measured, the bound, and whether the bound holds."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from aimcore.testing.requirements import FAULTS


@attrs.frozen
class Setting:
    """Where the checks run, and how many of them."""

    device: torch.device
    quick: bool
    """Tiny sizes and fewer cases."""


@attrs.frozen
class Finding:
    """What one check found."""

    is_right: bool
    measured: str
    bound: str = ""
    numbers: Mapping[str, float] = attrs.field(factory=dict)
    """Measured numbers by name, for ``--json``."""


@attrs.frozen
class Row:
    """A line of the table."""

    group: str
    check: str
    finding: Finding


def attempted(group: str, check: str, measure: Callable[[], Finding]) -> Row:
    """Return the row of a check. An error inside it is a wrong row with the error's text."""
    try:
        return Row(group, check, measure())
    except (*FAULTS, AssertionError, ImportError) as error:
        traceback.print_exc()
        return Row(group, check, Finding(False, f"{type(error).__name__}: {error}"))


def at_most(difference: float, bound: float, note: str = "") -> Finding:
    """Return whether a relative difference is within its bound; NaN is not."""
    return Finding(difference <= bound, f"{difference:.1e}{note}", f"<= {bound:.0e}", {"difference": difference})


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Return ``|one - other| / |other|`` in float64, with the Euclidean norm over all numbers; 0 for 0 / 0."""
    own, reference = one.detach().double().cpu(), other.detach().double().cpu()
    difference = float((own - reference).norm())
    return difference / float(reference.norm()) if difference else 0.0


def worst(differences: Sequence[float]) -> float:
    """Return the largest of the differences, or NaN if any of them is NaN."""
    return float(torch.tensor(differences, dtype=torch.float64).max())
