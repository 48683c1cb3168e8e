"""Counts and limits of unreadable samples, kept by each process in the order of its batches."""

from __future__ import annotations

import attrs
from loguru import logger

from aimcore.contracts.errors import NoCaption, TooManyUnreadable, UnreadableSample
from aimcore.experiment import Data


@attrs.define(eq=False)
class Unreadable:
    """The samples that one process could not read since it started.

    Reads are counted, so that a sample that is read again in the next epoch counts again; ``named`` has different
    samples. Neither depends on the number of data workers, and at most ``max_unreadable`` + 1 names are stored.
    """

    data: Data
    """The limits ``max_unreadable`` and ``max_unreadable_share``."""
    num_read: int = 0
    num_failed: int = 0
    num_without_caption: int = 0
    named: dict[str, str] = attrs.field(factory=dict)
    """Causes by identifier, of the first ``max_unreadable`` + 1 samples."""

    def add(self, num_readable: int, failures: tuple[UnreadableSample, ...]) -> None:
        """Count a batch, and name those of its samples that are new.

        Raises:
            TooManyUnreadable: there are more than both limits allow.
        """
        self.num_read += num_readable + len(failures)
        for failure in failures:
            self.num_failed += 1
            self.num_without_caption += isinstance(failure, NoCaption)
            if failure.identifier not in self.named and len(self.named) <= self.data.max_unreadable:
                self._name(failure)
            if self._are_too_many():
                raise TooManyUnreadable(self._message())

    def _name(self, failure: UnreadableSample) -> None:
        self.named[failure.identifier] = failure.cause
        is_last = len(self.named) > self.data.max_unreadable
        rest = ": others are counted, and not named" if is_last else ""
        logger.warning("{}; {} unreadable{}", failure, len(self.named), rest)

    def _are_too_many(self) -> bool:
        is_beyond = len(self.named) > self.data.max_unreadable
        return is_beyond and self.num_failed > self.data.max_unreadable_share * self.num_read

    def _message(self) -> str:
        count, limits = self.num_without_caption, self.data
        without = f" ({count} {'have' if count > 1 else 'has'} no wanted caption)" if count else ""
        first = "; ".join(f"{name} ({cause})" for name, cause in list(self.named.items())[:3])
        return (
            f"{self.num_failed} of {self.num_read} images read could not be read{without}, more than "
            f"data.max_unreadable = {limits.max_unreadable} and data.max_unreadable_share = "
            f"{limits.max_unreadable_share:g} allow. The first: {first}. Repair the data, or raise the limits"
        )
