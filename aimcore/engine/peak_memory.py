"""The peak memory of this process: of tensors on its GPU, or resident memory on a CPU."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from aimcore.engine.host_memory import give_back_freed_memory

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see the manual page proc_pid_clear_refs(5)


def restart_peak(device: torch.device) -> None:
    """Begin to measure the peak anew. Where the system does not allow it, the peak is that since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    give_back_freed_memory()  # of earlier work: it would be part of the new peak
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:  # another system than Linux, or a container without the file
        return


def peak_memory(device: torch.device) -> int:
    """Return bytes: PyTorch's peak of allocated memory on a GPU, or the peak of resident memory on a CPU.

    Resident memory includes Python and its libraries, a few hundred megabytes, and images that the process loads.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        return resident("VmHWM")
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def resident(field: str) -> int:
    """Return bytes of resident memory from Linux: ``"VmRSS"`` now, ``"VmHWM"`` at the peak.

    Raises:
        OSError, LookupError: the system does not say.
    """
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise LookupError(field)
