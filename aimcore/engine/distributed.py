"""Start-up of one process of a run: alone on a CPU or GPU, or as one of several under torchrun or deepspeed.

The process group stays up until the process ends, so that several experiments can run one after another.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import inspect
import logging
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore, HashStore  # type: ignore[attr-defined]  # public, but not in torch's stubs

T = TypeVar("T")


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
    """Join the run's process group, or make a group of one; calling it again changes nothing but the threads.

    A lone process needs neither a launcher nor a network port. Under a launcher, its environment variables (``RANK``,
    ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``) decide.

    Args:
        num_threads: CPU threads of this process; by default its share of the cores (see :func:`threads_per_process`).
    """
    torch.set_num_threads(num_threads or threads_per_process())
    device = _device()
    deepspeed = load_deepspeed()
    if not dist.is_initialized():
        # The first optimiser imports it anyway. Imported while a group exists, it keeps the group's threads alive.
        importlib.import_module("torch._dynamo")
        backend = "nccl" if device.type == "cuda" else "gloo"
        _describe_lone_process()
        if "MASTER_ADDR" not in os.environ:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        atexit.register(_leave)
    return World(dist.get_rank(), dist.get_world_size(), device)


def join(meeting: Path, rank: int, size: int) -> None:
    """Make this process one of ``size`` on this machine that train together on the CPU, without a launcher.

    Args:
        meeting: a file that does not exist yet, the same for all.
        rank: this process's number among them.
        size: how many they are.
    """
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size))
    deepspeed = load_deepspeed()
    store = FileStore(str(meeting), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    atexit.register(_leave)


def threads_per_process() -> int:
    """This process's share of the cores it may use, among the processes on this machine.

    torchrun sets OMP_NUM_THREADS to 1, which leaves cores idle, and without it every process takes all cores, which is
    slower still; so the number is always set explicitly.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # torchrun says LOCAL_WORLD_SIZE, DeepSpeed's launcher LOCAL_SIZE.
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)
    return max(1, cores // local)


def load_deepspeed() -> ModuleType:
    """Import DeepSpeed without its log lines, and without a C++ build on CPUs."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # DeepSpeed calls functions that torch has renamed; nobody who runs aimcore can do anything about it.
    warnings.filterwarnings("ignore", message=r".torch\.distributed\.", category=FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Otherwise it compiles a shared-memory extension at start-up: a minute, and an error without ninja or g++.
    # The dictionary is not documented; where it is gone, so may be the need for it.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if isinstance(compatible, dict):
        compatible["deepspeed_shm_comm"] = False
    module: ModuleType = deepspeed
    return module


def forget_modules() -> None:
    """Empty DeepSpeed's global list and cache of modules, which keep every model ever trained at stage 3 in memory."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    running = getattr(parameter_offload, "FWD_MODULE_STACK", None)
    if isinstance(running, list):
        running.clear()
    # A cached method under a decorator that hides the cache; neither is documented, so either may be gone.
    releasing = getattr(Coordinator, f"_{Coordinator.__name__}__params_to_release", None)
    if inspect.isfunction(releasing):
        cached = inspect.getclosurevars(releasing).nonlocals.get("func", releasing)
        getattr(cached, "cache_clear", lambda: None)()


def add_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks of a small vector of numbers, in float64."""
    if dist.get_world_size() == 1:
        return values
    total = values.to(_device())
    dist.all_reduce(total)
    return total.cpu()


def any_rank(flag: bool) -> bool:
    """Whether any rank says so; every rank must ask."""
    return bool(add_over_ranks(torch.tensor([float(flag)], dtype=torch.float64)) > 0)


def barrier() -> None:
    """Wait for all ranks."""
    if dist.get_world_size() > 1:
        dist.barrier()


def from_first(value: T) -> T:
    """What rank 0 has of ``value``, on every rank."""
    if dist.get_world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=_device())
    return box[0]


def from_everyone(value: T) -> list[T]:
    """What every rank has of ``value``, by rank, on every rank."""
    if dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _leave() -> None:
    """Take the process group down while Python still runs.

    gloo's threads free tensors, for which they need Python: one that still does so when Python ends aborts a process
    that had finished well (pytorch/pytorch#179291). After an error other ranks may be waiting for this one, and an
    orderly end would wait for them; then the process just ends.
    """
    if not dist.is_initialized() or hasattr(sys, "last_value"):
        return
    load_deepspeed().comm.destroy_process_group()
    gc.collect()  # the threads end with the last reference to the group


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _describe_lone_process() -> None:
    # DeepSpeed reads these even where a group exists; a launcher's values win.
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        os.environ.setdefault(name, value)
