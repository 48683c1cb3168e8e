"""This process among the processes of a run, as the environment variables of torchrun or deepspeed describe them.

This is known before torch is loaded and before the processes can communicate, which they do through
:mod:`aimcore.engine.distributed`.
"""

from __future__ import annotations

import os

_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "CROSS_RANK")
"""Variables that torchrun and DeepSpeed's launcher set."""


def rank() -> int:
    """This process's number; process 0 writes files and logs for all."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    # torchrun sets LOCAL_WORLD_SIZE, DeepSpeed's launcher LOCAL_SIZE.
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def is_launched() -> bool:
    """Whether torchrun or DeepSpeed's launcher started this process, and waits for its end."""
    return any(name in os.environ for name in _LAUNCHERS)


def meeting_point() -> tuple[str, int] | None:
    """Host and port where the processes of the run meet; None for a process that no launcher started."""
    host = os.environ.get("MASTER_ADDR")
    return None if host is None else (host, int(os.environ["MASTER_PORT"]))


def describe_process(rank: int, size: int) -> None:
    """Set the variables of process ``rank`` of ``size`` processes on this machine, as a launcher would."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), LOCAL_WORLD_SIZE=str(size))


def describe_lone_process() -> None:
    """Set the variables of a process without others, where no launcher has set them. DeepSpeed reads them."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        os.environ.setdefault(name, value)
