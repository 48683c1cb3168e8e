"""The samples of many tar shards by number. Indices are opened when they are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aimcore_sources.left_out import summarised
from aimcore_sources.webdataset_index import Place, ShardIndex, index_of, kept_index_of

_MAX_OPENED = 1024
"""Largest number of indices that a process keeps open. Each is a memory map, of which Linux allows 65,530."""


class SamplePlace(NamedTuple):
    """The place of a sample."""

    shard: int
    key: str
    members: dict[str, Place]
    """Members by extension, in lower case."""


class _OpenIndex(NamedTuple):
    shard: ShardIndex
    chosen_k: npt.NDArray[np.int64] | None
    """Samples with an image, if not all have one."""


class Samples:
    """The samples of shards that have an image: one shard after another, each in the order of its first members.

    A process stores 17 bytes per shard, in addition to its name, and opens the indices of the shards that it reads.
    They are files; those that could not be written are kept in memory. Data workers receive no open index.
    """

    def __init__(
        self, shards: Sequence[str], images: Sequence[str], cache_folder: str | None, others: Sequence[str] = ()
    ) -> None:
        """Scan the shards that have not been scanned yet.

        Args:
            shards: their URLs.
            images: extensions of images, in lower case.
            cache_folder: folder of the indices; None stores them next to their shards.
            others: extensions of other members that are read, in lower case.

        Raises:
            DataNotFound: a shard is missing.
            ShardError: a shard is damaged, or has a member twice.
        """
        self.shards = tuple(shards)
        self._images, self._cache_folder = tuple(images), cache_folder
        self._digests = np.zeros(len(shards), dtype=np.uint64)
        self._is_verified = np.zeros(len(shards), dtype=bool)
        self._held: dict[int, ShardIndex] = {}
        left_out: Counter[str] = Counter()
        counts = np.zeros(len(shards), dtype=np.int64)
        for number, shard in enumerate(shards):
            index = index_of(shard, cache_folder)
            self._digests[number], counts[number] = index.digest, index.count_with(images)
            left_out += index.left_out(images, others)
            left_out["shards without any member"] += not (index.counts or index.ignored)
            if not index.is_kept:
                self._held[number] = index
        self.left_out: Mapping[str, int] = summarised(left_out)
        """Return counts of what no sample contains, by reason."""
        self._ends = np.cumsum(counts)
        self._opened = lru_cache(_MAX_OPENED)(self._open)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def shard_of(self, number: int) -> int:
        """Return the shard of the sample ``number``.

        Raises:
            IndexError: the number is out of range.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} samples, no number {number}")
        return int(np.searchsorted(self._ends, number, side="right"))

    def at(self, number: int) -> SamplePlace:
        """Return the place of the sample ``number``.

        Raises:
            IndexError: the number is out of range.
            DataNotFound: the shard and its index are missing.
            ShardError: the shard and its index have changed since the scan.
        """
        shard = self.shard_of(number)
        opened, chosen_k = self._opened(shard)
        place = number - (int(self._ends[shard - 1]) if shard else 0)
        sample = place if chosen_k is None else int(chosen_k[place])
        return SamplePlace(shard, opened.key(sample), opened.members(sample))

    def _open(self, shard: int) -> _OpenIndex:
        index = self._held.get(shard)
        if index is None:
            verify, digest = not self._is_verified[shard], int(self._digests[shard])
            index = kept_index_of(self.shards[shard], self._cache_folder, digest, verify=verify)
            self._is_verified[shard] = True
        return _OpenIndex(index, index.samples_with(self._images))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open indices."""
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._opened = lru_cache(_MAX_OPENED)(self._open)
