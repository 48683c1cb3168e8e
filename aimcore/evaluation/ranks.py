"""Adding up and putting together what several processes computed; with one process, nothing happens here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import AimcoreError


class TooFewBatches(AimcoreError):
    """Some process has nothing to evaluate."""

    def __init__(self, num_ranks: int) -> None:
        super().__init__(
            f"there are too few samples to evaluate: not each of {num_ranks} processes has a batch. "
            "Give more samples, smaller batches, or fewer processes"
        )


def rank_and_world_size() -> tuple[int, int]:
    """This process and the number of processes; (0, 1) where torch.distributed is not in use."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def in_step(batches: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, bool]]:
    """Give every process equally many batches, each with whether it counts.

    A trunk partitioned over processes (ZeRO stage 3) needs all of them for each forward. A process that has run out
    repeats its last batch, which does not count, until the others are done.

    Raises:
        TooFewBatches: some process has no batch at all (raised on every process).
    """
    _, num_ranks = rank_and_world_size()
    remaining, last = iter(batches), None
    while True:
        batch = next(remaining, None)
        last = batch or last
        if num_ranks > 1:
            flags = torch.tensor([-int(batch is not None), int(last is not None)], device=device)
            dist.all_reduce(flags, dist.ReduceOp.MIN)
            nobody_has_one, all_can_run = bool(flags[0] == 0), bool(flags[1])
        else:
            nobody_has_one, all_can_run = batch is None, True
        if nobody_has_one:
            return
        if not all_can_run or last is None:
            raise TooFewBatches(num_ranks)
        yield last, batch is not None


def add_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    """The sum of equally long CPU tensors over all processes."""
    if rank_and_world_size()[1] == 1:
        return values
    total = values.to(device)
    dist.all_reduce(total)
    return total.cpu()


def largest_over_ranks(value: int, device: torch.device) -> int:
    """The largest of one integer per process."""
    if rank_and_world_size()[1] == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def gather_rows(rows: Tensor, device: torch.device) -> Tensor:
    """All processes' rows ``[n, ...]``, in the order of their ranks; ``n`` may differ between them."""
    _, num_ranks = rank_and_world_size()
    if num_ranks == 1:
        return rows
    length = torch.tensor([len(rows)], device=device)
    lengths = [torch.zeros_like(length) for _ in range(num_ranks)]
    dist.all_gather(lengths, length)
    longest = max(int(n) for n in lengths)
    padded = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows.to(device)
    parts = [torch.zeros_like(padded) for _ in range(num_ranks)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]).cpu()
