"""The process that holds the lock of a folder, as the lock describes it. This module does not import torch."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import attrs
from filelock import SoftFileLease

from aimcore.io.run_folder import HOLDER_FILE, LOCK_FILE


@attrs.frozen
class Holder:
    """The process that holds a lock."""

    host: str
    namespace: str
    """Processes with the same host and namespace see each other; each container has a namespace of its own."""
    pid: int
    since: str
    command: str
    processes: Sequence[str] = ()
    """``host:pid`` of every process of the run."""

    @classmethod
    def this_process(cls, processes: Sequence[str]) -> Self:
        """Describe this process as the holder, from now on."""
        return cls(
            host=platform.node(),
            namespace=_namespace(),
            pid=os.getpid(),
            since=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            command=shlex.join(sys.orig_argv),
            processes=tuple(processes),
        )

    @property
    def can_be_examined(self) -> bool:
        """Whether this process can check that the holder is alive: not on another machine, and not for a zombie."""
        return self._is_near and not _is_zombie(self.pid)

    @property
    def has_ended(self) -> bool:
        """Whether the holder is known to have ended. A process number that is in use again proves nothing."""
        if not self._is_near or not self.namespace:  # without a namespace, processes cannot be looked up either
            return False
        return _is_zombie(self.pid) or not Path(f"/proc/{self.pid}").exists()

    @property
    def _is_near(self) -> bool:
        return (self.host, self.namespace) == (platform.node(), _namespace())

    def __str__(self) -> str:
        others = f", with {', '.join(self.processes)}" if len(self.processes) > 1 else ""
        return f"process {self.pid} on {self.host} since {self.since} ({self.command}){others}"


def read_holder(lease: SoftFileLease) -> Holder | None:
    """Return the holder of a lock; None if its two files disagree, as while the lock is being taken."""
    owner = lease.owner
    try:
        content: Any = json.loads((Path(lease.lock_file).parent / HOLDER_FILE).read_text(encoding="utf-8"))
        holder = Holder(**content)
    except (OSError, ValueError, TypeError):
        return None
    return holder if owner is not None and owner.pid == holder.pid else None


def is_abandoned(folder: Path) -> bool:
    """Whether the folder's lock belongs to a process that is known to have ended."""
    if not os.path.lexists(folder / LOCK_FILE):
        return False
    holder = read_holder(SoftFileLease(folder / LOCK_FILE))
    return holder is not None and holder.has_ended


def _namespace() -> str:
    """Return a text that is unique per container and boot of a machine; empty if the system provides none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not waited for it: common in containers without an init."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return False
    return fields.split()[:1] == ["Z"]
