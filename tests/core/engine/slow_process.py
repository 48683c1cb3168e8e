"""Two processes of which one takes longer than a collective may wait, several times. Run as by torchrun."""

import time
from datetime import timedelta

import torch
import torch.distributed as dist

from aimcore.engine.distributed import (
    barrier,
    from_everyone,
    from_first,
    gather_rows,
    on_every_rank,
    on_first_rank,
    start,
)

LIMIT, WORK = 0.3, 0.9
"""Seconds that torch's collectives wait, and that one process works alone."""


def working(result: str) -> str:
    """Take longer than the limit."""
    time.sleep(WORK)
    return result


if __name__ == "__main__":
    world = start(num_threads=1)
    slow = world.rank == 1
    on_first_rank(lambda: None)
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=LIMIT), dist.group.WORLD)
    found = [on_first_rank(lambda: working("first")), on_every_rank(lambda: working("every") if slow else "other")]
    found += from_everyone(working("slow") if slow else "fast")
    found.append(from_first("value" if slow else working("value")))
    if slow:
        working("")
    barrier()
    if slow:
        working("")
    found.append(str(gather_rows(torch.full((1,), world.rank)).tolist()))
    print(*found)
    if slow:
        working("")
    try:
        dist.barrier()
    except RuntimeError as error:
        print("timed out" if "imed out" in str(error) else error)
