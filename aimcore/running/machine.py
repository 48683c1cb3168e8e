"""The machine that a run's numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from aimcore.io import launcher


def machine() -> dict[str, Any]:
    """Return the machine's hardware and the versions of its libraries, for the summary."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "gpus": gpus,
        "num_processes": launcher.world_size(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": version("deepspeed"),
        "aimcore": version("aimcore"),
    }
