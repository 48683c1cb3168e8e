"""What checks are written with: conditions that say what to do, and comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor

from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.randomness import seed_torch

TOLERANCE = 1e-10
"""Float64 numbers that differ by less are the same: real dependences of random networks are orders larger."""

_ALMOST = 0.8
"""Similarity (difflib's ratio, at most 1) from which a name is taken for a misspelling of a known one."""

FAULTS = (
    ArithmeticError, AttributeError, LookupError, NameError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What code raises that is given something it did not expect; AimcoreError is a ValueError."""


def require(holds: bool | Tensor, message: str) -> None:
    """Fail a check unless ``holds``.

    Raises:
        AssertionError: with ``message``, which says what was found and what to do.
    """
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(message)


def require_names(field: str, given: object, known: Iterable[str], what: str) -> None:
    """Fail a check unless ``given`` is a frozenset of names that are ``known`` or a plugin's own.

    Raises:
        AssertionError: it is something else, which sets cannot be compared with, or a name is almost a known one.
    """
    __tracebackhide__ = True
    names = sorted(known)
    require(isinstance(given, frozenset), f"{field} must be a frozenset, got {given!r}: write frozenset({{...}})")
    assert isinstance(given, frozenset)
    require(all(isinstance(name, str) for name in given), f"{field} must hold text, got {given!r}")
    for name in sorted(given - set(names)):
        near = get_close_matches(name, names, n=1, cutoff=_ALMOST)
        require(
            not near,
            f"{field} names {name!r}, which is almost {near}: {what} of the core are {names}. Write that, or give one "
            "of your own another name",
        )


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Say what an error inside the block means.

    Raises:
        AssertionError: ``message`` and the error.
    """
    __tracebackhide__ = True
    try:
        yield
    except BrokenContract as fault:  # it says all by itself
        raise AssertionError(str(fault)) from fault
    except FAULTS as fault:
        raise AssertionError(f"{message}: {type(fault).__name__}: {fault}") from fault


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw from ``seed`` in the block; afterwards torch's generator is as it was."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(seed)
        yield


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have one shape and, but for rounding, the same numbers."""
    return one.shape == other.shape and not bool(differs(one, other).any())


def differs(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors differ by more than rounding; places that are NaN in either count as the same."""
    return (one.detach().double() - other.detach().double()).nan_to_num().abs() > TOLERANCE


def shape_of(tensor: object) -> str:
    """A tensor's shape and type for a message; for anything else its type."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
