"""Errors that all processes share: what fails on one of them ends all of them at once.

A process that fails alone leaves the others waiting in their next collective, often for minutes. What may fail before
the ranks communicate is therefore run through :func:`on_every_rank` or :func:`on_first_rank`, which communicate
whether it succeeded. Their callables must not communicate themselves.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs
import torch.distributed as dist

from aimcore.contracts.errors import AimcoreError
from aimcore.engine.distributed import from_everyone, from_first

T = TypeVar("T")


class OtherProcessFailed(AimcoreError):
    """Another process of the run failed, so that this one cannot go on."""

    def __init__(self, rank: int, error: str) -> None:
        self._given = (rank, error)
        super().__init__(f"process {rank} failed, and the run cannot go on without it: {error}")

    def __reduce__(self) -> tuple[type[OtherProcessFailed], tuple[int, str]]:
        """Survive the way from one process to another."""
        return type(self), self._given


def on_every_rank(act: Callable[[], T]) -> T:
    """Run ``act`` on every rank; return its result, once it has succeeded on all of them.

    Every rank must call this. If ``act`` fails on any rank, every rank raises the error of the first one that failed:
    the error itself where it was raised, and elsewhere a copy of an :class:`AimcoreError`, or
    :class:`OtherProcessFailed`.
    """
    if _world_size() == 1:
        return act()
    attempt = Attempt()
    results: list[T] = []
    with attempt:
        results.append(act())
    _raise_first(from_everyone(attempt.failure()), attempt.error)
    return results[0]


def on_first_rank(act: Callable[[], T]) -> T:
    """Run ``act`` on rank 0 alone; every rank returns its result, or raises its error as :func:`on_every_rank` does."""
    if _world_size() == 1:
        return act()
    attempt = Attempt()
    results: list[T] = []
    if dist.get_rank() == 0:
        with attempt:
            results.append(act())
    results, failure = from_first((results, attempt.failure()))
    _raise_first([failure], attempt.error)
    return results[0]


class Attempt:
    """A context that keeps the error of its block instead of raising it; an interruption passes.

    Like the supervision of experiments, this catches errors of any kind: plugins and libraries may raise anything, and
    every kind must reach the other ranks.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None

    def failure(self) -> _Failure | None:
        """What to send to the other ranks; None after a success."""
        return None if self.error is None else _Failure.of(self.error)


class _OtherTraceback(Exception):
    """The traceback of another process, as text."""


@attrs.frozen
class _Failure:
    """An error on its way to other ranks."""

    rank: int
    text: str
    traceback: str
    copy: bytes | None
    """The pickled error, if it is one of ours that can be pickled."""

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        text = f"{type(error).__name__}: {error}"
        return cls(dist.get_rank(), text, "".join(traceback.format_exception(error)), _pickled(error))

    def error(self) -> AimcoreError:
        """The error to raise on another rank. Its cause is the traceback of the rank that failed.

        It is the cause, as in concurrent.futures, and not a note: notes are shown to users, tracebacks are not.
        """
        copied: Any = OtherProcessFailed(self.rank, self.text) if self.copy is None else pickle.loads(self.copy)
        copied.__cause__ = _OtherTraceback(f"on process {self.rank}:\n{self.traceback}")
        error: AimcoreError = copied
        return error


def _pickled(error: Exception) -> bytes | None:
    """The pickled error; None if it is not ours, or does not come back as it was."""
    if not isinstance(error, AimcoreError):
        return None
    try:
        copy = pickle.dumps(error)
        return copy if str(pickle.loads(copy)) == str(error) else None
    except (pickle.PicklingError, TypeError, ValueError, AttributeError, LookupError):
        return None


def _raise_first(failures: list[_Failure | None], own: Exception | None) -> None:
    first = next((failure for failure in failures if failure is not None), None)
    if first is None:
        return
    if own is not None and first.rank == dist.get_rank():
        raise own
    raise first.error()


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
