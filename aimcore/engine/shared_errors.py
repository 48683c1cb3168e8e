"""Errors that one process sends to the others; see :mod:`aimcore.engine.distributed`."""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any, Self

import attrs

from aimcore.contracts.errors import AimcoreError


class OtherProcessFailed(AimcoreError):
    """Another process of the run failed, so that this one cannot continue."""

    def __init__(self, rank: int, error: str) -> None:
        self._given = (rank, error)
        super().__init__(f"process {rank} failed, and the run cannot continue without it: {error}")

    def __reduce__(self) -> tuple[type[OtherProcessFailed], tuple[int, str]]:
        """Pickle, to be sent to another process."""
        return type(self), self._given


class Attempt:
    """A context that keeps the error of its block instead of raising it; an interruption passes.

    Like the supervision of experiments, this catches errors of any type: plugins and libraries may raise any error, and
    the other ranks must receive all of them.
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

    def failure(self, rank: int) -> Failure | None:
        """Return the failure that process ``rank`` sends to the others; None after success."""
        return None if self.error is None else Failure.of(self.error, rank)


class _OtherTraceback(Exception):
    """The traceback of another process, as text."""


@attrs.frozen
class Failure:
    """An error that is sent to other ranks."""

    rank: int
    text: str
    traceback: str
    copy: bytes | None
    """The pickled error, if it is an AimcoreError that can be pickled."""

    @classmethod
    def of(cls, error: Exception, rank: int) -> Failure:
        """Create the failure for an error of process ``rank``."""
        text = f"{type(error).__name__}: {error}"
        return cls(rank, text, "".join(traceback.format_exception(error)), _pickled(error))

    def error(self) -> AimcoreError:
        """Return the error to raise on another rank. Its cause is the traceback of the rank that failed.

        It is the cause, as in concurrent.futures, and not a note: notes are printed for users, tracebacks are not.
        """
        copied: Any = OtherProcessFailed(self.rank, self.text) if self.copy is None else pickle.loads(self.copy)
        copied.__cause__ = _OtherTraceback(f"on process {self.rank}:\n{self.traceback}")
        error: AimcoreError = copied
        return error


def _pickled(error: Exception) -> bytes | None:
    """Pickle an error; None if it is not an AimcoreError, or does not unpickle to an equal one."""
    if not isinstance(error, AimcoreError):
        return None
    try:
        copy = pickle.dumps(error)
        return copy if str(pickle.loads(copy)) == str(error) else None
    except (pickle.PicklingError, TypeError, ValueError, AttributeError, LookupError):
        return None
