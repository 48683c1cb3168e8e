"""Helpers of the checks: conditions with messages, and comparisons of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor

from aimcore.contracts.errors import BrokenContract

TOLERANCE = 1e-10
"""Float64 numbers that differ by less count as equal: real dependences in random networks are far larger."""

_ALMOST = 0.8
"""Similarity (difflib's ratio, at most 1) from which a name counts as a misspelling of a known one."""

FAULTS = (
    ArithmeticError, AttributeError, LookupError, NameError, NotImplementedError, OSError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""Errors that code raises on unexpected input; AimcoreError is a ValueError."""


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
        AssertionError: it is not a frozenset of text, or a name resembles a known one.
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
            f"{field} names {name!r}, which resembles {near}: {what} of the core are {names}. Correct the name, or "
            "choose a more distinct one",
        )


@contextmanager
def explained(message: str) -> Iterator[None]:
    """Convert an error inside the block into a failed check with ``message``.

    Raises:
        AssertionError: ``message`` and the error.
    """
    __tracebackhide__ = True
    try:
        yield
    except BrokenContract as fault:  # its message is complete
        raise AssertionError(str(fault)) from fault
    except FAULTS as fault:
        raise AssertionError(f"{message}: {type(fault).__name__}: {fault}") from fault


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed torch's generator of the CPU with ``seed`` in the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and, up to rounding, the same numbers."""
    return one.shape == other.shape and not bool(differs(one, other).any())


def differs(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors differ by more than rounding; NaN in either counts as equal."""
    return (one.detach().double() - other.detach().double()).nan_to_num().abs() > TOLERANCE


def shape_of(tensor: object) -> str:
    """Describe a tensor by shape and dtype in a message, and other values by type."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
