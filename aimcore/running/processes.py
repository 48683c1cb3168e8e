"""This process among the processes of a run, as launchers tell it: known before anything is started."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


def rank() -> int:
    """This process's number; 0 writes and speaks for all."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def machine() -> dict[str, Any]:
    """What the numbers were made on."""
    from importlib.metadata import version

    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "gpus": gpus,
        "num_processes": world_size(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": version("deepspeed"),
        "aimcore": version("aimcore"),
    }


def first_process_says(answer: Callable[[], T]) -> T:
    """What ``answer`` gives on the first process, on every process; its error too. The others do not call it."""
    if world_size() == 1:
        return answer()
    from aimcore.engine.agreement import on_first_rank
    from aimcore.engine.distributed import start

    start()
    return on_first_rank(answer)


def every_process_does(act: Callable[[], T]) -> T:
    """Run ``act``, which does not communicate, on every process; what fails on one of them fails on all of them."""
    if world_size() == 1:
        return act()
    from aimcore.engine.agreement import on_every_rank
    from aimcore.engine.distributed import start

    start()
    return on_every_rank(act)


def every_process_says(value: T) -> list[T]:
    """The ``value`` of every process, by rank, on every process."""
    if world_size() == 1:
        return [value]
    from aimcore.engine.distributed import from_everyone, start

    start()
    return from_everyone(value)


def all_failed_together(label: str, timeout_seconds: float = 60.0) -> bool:
    """Whether every process failed at ``label``, so that all can go on to the next experiment together.

    A process that failed alone must not go on: the others wait for it inside a collective. This asks through the
    launcher's key-value store, because a collective would pair with the one the others are in.
    """
    if world_size() == 1:
        return True
    import torch.distributed as dist

    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    key, deadline = f"aimcore/failed/{label}", time.monotonic() + timeout_seconds
    store.add(key, 1)
    while time.monotonic() < deadline:
        if store.add(key, 0) >= world_size():
            return True
        time.sleep(_POLL_SECONDS)
    return False
