"""The processes of a run: their ranks, reductions over them, and errors that they share.

A process alone on a CPU or GPU, or one of several under torchrun or deepspeed. All functions work with one process
too, where they communicate nothing. Several processes join their group at the first call, and stay in it until they
end, so that several experiments can run one after another. What is known without a group, such as the rank for the
log, is in :mod:`aimcore.io.launcher`.

A process that fails alone leaves the others waiting in their next collective, often for minutes. What may fail before
the ranks communicate is therefore run through :func:`on_every_rank` or :func:`on_first_rank`, which share whether it
succeeded. Their callables must not communicate themselves. They may take hours on one rank alone: the others wait.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore, HashStore, TCPStore  # type: ignore[attr-defined]  # public, not in the stubs

from aimcore.engine.deepspeed_library import load_deepspeed
from aimcore.engine.host_memory import keep_freed_memory
from aimcore.engine.shared_errors import Attempt, Failure
from aimcore.io import launcher

T = TypeVar("T")

_POLL_SECONDS = 0.1
_PATIENCE = timedelta(days=7)
"""How long processes wait for one that works alone, for example while it verifies, copies or fits something large.
torch's own limit, of 10 to 30 minutes, would end the run. A process that dies ends the wait at once: its connections
break."""


@attrs.frozen
class World:
    """This process among all processes of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and reports progress."""
        return self.rank == 0


def start(num_threads: int | None = None) -> World:
    """Join the run's process group, or make a group of one. A second call changes only the number of threads.

    A lone process needs neither a launcher nor a network port. Under a launcher, :mod:`aimcore.io.launcher` describes
    the group.

    Args:
        num_threads: CPU threads of this process; by default its share of the cores (see :func:`threads_per_process`).
    """
    torch.set_num_threads(num_threads or threads_per_process())
    device = _device()
    if device.type == "cpu":
        keep_freed_memory()
    deepspeed = load_deepspeed()
    if not dist.is_initialized():
        # The first optimiser imports it anyway. Imported while a group exists, it keeps the group's threads alive.
        importlib.import_module("torch._dynamo")
        backend = "nccl" if device.type == "cuda" else "gloo"
        launcher.describe_lone_process()
        if launcher.meeting_point() is None:
            # NCCL guesses the device of a group that is not bound to one, and warns at every barrier.
            bound = device if device.type == "cuda" else None
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, device_id=bound)
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        atexit.register(_leave)
    return World(dist.get_rank(), dist.get_world_size(), device)


def join(meeting: Path, rank: int, size: int) -> None:
    """Make this process one of ``size`` on this machine that train together on the CPU, without a launcher.

    Args:
        meeting: a file that does not exist yet, the same for all.
        rank: this process's number among them.
        size: their number.
    """
    launcher.describe_process(rank, size)
    deepspeed = load_deepspeed()
    store = FileStore(str(meeting), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    atexit.register(_leave)


def threads_per_process() -> int:
    """This process's share of the cores it may use, among the processes on this machine.

    torchrun sets OMP_NUM_THREADS to 1, which leaves cores idle, and without it every process takes all cores, which is
    even slower. So the number is always set explicitly.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // launcher.local_world_size())


def rank_and_world_size() -> tuple[int, int]:
    """Return rank and number of processes; the processes join their group first if a launcher started several."""
    if not dist.is_initialized():
        if launcher.world_size() == 1:
            return 0, 1
        start()
    return dist.get_rank(), dist.get_world_size()


def add_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of tensors of equal shape over all ranks, on the CPU."""
    return _reduced(values, dist.ReduceOp.SUM)


def smallest_over_ranks(numbers: Sequence[int]) -> list[int]:
    """Return the minimum of each of several integers over all ranks."""
    return [int(number) for number in _reduced(torch.tensor(numbers), dist.ReduceOp.MIN)]


def largest_over_ranks(number: int) -> int:
    """Return the maximum of one integer over all ranks."""
    return int(_reduced(torch.tensor([number]), dist.ReduceOp.MAX))


def any_rank(flag: bool) -> bool:
    """Whether the flag of any rank is set; every rank must call this."""
    return bool(largest_over_ranks(int(flag)))


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows ``[n, ...]`` of all ranks, in order of rank, on the CPU; ``n`` may differ between ranks."""
    _, size = rank_and_world_size()
    if size == 1:
        return rows
    barrier()
    device = _exchange_device()
    length = torch.tensor([len(rows)], device=device)
    lengths = [torch.zeros_like(length) for _ in range(size)]
    dist.all_gather(lengths, length)
    longest = max(int(n) for n in lengths)
    padded = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows.to(device)
    parts = [torch.zeros_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]).cpu()


def barrier() -> None:
    """Wait for all ranks, for as long as they take."""
    if rank_and_world_size()[1] > 1:
        dist.barrier(group=_patient_group())


def from_first(value: T) -> T:
    """Return the ``value`` of rank 0 on every rank."""
    if rank_and_world_size()[1] == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_patient_group())
    return box[0]


def from_everyone(value: T) -> list[T]:
    """Return the values of all ranks, in order of rank, on every rank."""
    _, size = rank_and_world_size()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value, group=_patient_group())
    return values


def on_every_rank(act: Callable[[], T]) -> T:
    """Run ``act`` on every rank; return its result, once it has succeeded on all of them.

    Every rank must call this. If ``act`` fails on any rank, every rank raises the error of the first one that failed:
    the error itself where it was raised, and elsewhere a copy of an :class:`~aimcore.contracts.errors.AimcoreError`,
    or :class:`~aimcore.engine.shared_errors.OtherProcessFailed`.
    """
    rank, size = rank_and_world_size()
    if size == 1:
        return act()
    attempt = Attempt()
    results: list[T] = []
    with attempt:
        results.append(act())
    _raise_first(from_everyone(attempt.failure(rank)), attempt.error, rank)
    return results[0]


def on_first_rank(act: Callable[[], T]) -> T:
    """Run ``act`` on rank 0 alone; every rank returns its result, or raises its error as :func:`on_every_rank` does."""
    rank, size = rank_and_world_size()
    if size == 1:
        return act()
    attempt = Attempt()
    results: list[T] = []
    if rank == 0:
        with attempt:
            results.append(act())
    results, failure = from_first((results, attempt.failure(rank)))
    _raise_first([failure], attempt.error, rank)
    return results[0]


def all_failed_together(label: str, timeout_seconds: float = 60.0) -> bool:
    """Whether every process failed at ``label``, so that all can continue with the next experiment together.

    A process that failed alone must not continue: the others wait for it inside a collective. This asks through the
    launcher's key-value store, because a collective would pair with the one the others are in.
    """
    meeting, size = launcher.meeting_point(), launcher.world_size()
    if meeting is None or size == 1:
        return True
    store = TCPStore(*meeting, is_master=False)
    key, deadline = f"aimcore/failed/{label}", time.monotonic() + timeout_seconds
    store.add(key, 1)
    while time.monotonic() < deadline:
        if store.add(key, 0) >= size:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def is_broken_connection(error: RuntimeError) -> bool:
    """Whether ``error`` says that another process cannot be reached; gloo's has no type of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@cache
def _patient_group() -> Any:
    """Return a group of all ranks on the CPU, in which waiting for one of them has no practical limit."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def _reduced(values: Tensor, operation: Any) -> Tensor:
    if rank_and_world_size()[1] == 1:
        return values
    total = values.to(_exchange_device(), copy=True)
    dist.all_reduce(total, operation)
    return total.cpu()


def _exchange_device() -> torch.device:
    """Return the device that tensors must be on for collectives of the group."""
    return torch.device("cuda", torch.cuda.current_device()) if "nccl" in dist.get_backend() else torch.device("cpu")


def _raise_first(failures: list[Failure | None], own: Exception | None, rank: int) -> None:
    first = next((failure for failure in failures if failure is not None), None)
    if first is None:
        return
    if own is not None and first.rank == rank:
        raise own
    raise first.error()


def _leave() -> None:
    """Destroy the process group while Python still runs.

    gloo's threads need Python to free tensors: a thread that still does so while Python ends aborts a process that had
    succeeded (pytorch/pytorch#179291). After an error other ranks may be waiting for this one, and an orderly shutdown
    would wait for them; in that case the process ends without one.
    """
    if not dist.is_initialized() or hasattr(sys, "last_value"):
        return
    _patient_group.cache_clear()
    load_deepspeed().comm.destroy_process_group()
    gc.collect()  # the threads end with the last reference to the group


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", launcher.local_rank())
    torch.cuda.set_device(device)
    return device
