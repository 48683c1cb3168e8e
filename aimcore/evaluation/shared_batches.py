"""The same number of evaluation batches on every process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import AimcoreError
from aimcore.engine.distributed import rank_and_world_size, smallest_over_ranks


class TooFewBatches(AimcoreError):
    """Some process has no batch to evaluate."""

    def __init__(self, num_ranks: int) -> None:
        super().__init__(
            f"there are too few samples to evaluate: not each of {num_ranks} processes has a batch. "
            "Give more samples, smaller batches, or fewer processes"
        )


def in_step(batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Yield the same number of batches on every process, each with a flag whether it counts.

    A trunk partitioned over processes (ZeRO stage 3) needs all of them for each forward. A process that has run out
    repeats its last batch, which does not count, until all others have finished.

    Raises:
        TooFewBatches: some process has no batch at all (raised on every process).
    """
    remaining, last = iter(batches), None
    while True:
        batch = next(remaining, None)
        last = batch or last
        all_are_done, all_can_run = smallest_over_ranks([int(batch is None), int(last is not None)])
        if all_are_done:
            return
        if not all_can_run or last is None:
            raise TooFewBatches(rank_and_world_size()[1])
        yield last, batch is not None
