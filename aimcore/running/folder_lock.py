"""A folder of results belongs to one run at a time.

The lock is ``.lock`` in the folder: a lease of the library filelock, which works without ``flock``. The first process
holds it for all processes of a run; ``.lock.json`` next to it describes the holder for messages. A lock is stale and
can be taken over if

- its process has ended: it ran on this machine, and its number belongs to no process, or to one that started later;
- its process cannot be examined, because it runs on another machine or in another container, and has not touched
  ``.lock`` for :data:`LEASE_SECONDS`. A new run waits that long before it decides; clocks are not compared.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import attrs
from filelock import SoftFileLease, Timeout
from loguru import logger

from aimcore.contracts.errors import RunFolderError
from aimcore.engine.distributed import from_everyone, on_first_rank
from aimcore.io.atomic_files import make_folder, remove_partial, write_atomically, writing
from aimcore.io.launcher import rank
from aimcore.io.run_folder import HOLDER_FILE, LOCK_FILE
from aimcore.running.lock_holder import Holder, read_holder

LEASE_SECONDS = 120.0
"""A holder that cannot be examined is considered dead after this long without a sign of life."""
TOUCH_SECONDS = 20.0
"""Interval at which a holder touches its lock."""
_AT_ONCE_SECONDS, _POLL_SECONDS = 0.3, 0.1
"""The first attempt removes a stale lock and the second one takes it."""


class FolderLock:
    """Exclusive use of a folder, from :meth:`acquire` to :meth:`release`, as a context too."""

    def __init__(self, folder: Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self.folder = folder
        self._lease_seconds = lease_seconds
        self._lease = SoftFileLease(
            folder / LOCK_FILE,
            lease_duration=lease_seconds,
            heartbeat_interval=min(TOUCH_SECONDS, lease_seconds / 4),
            on_compromise=self._warn,
            thread_local=False,
        )

    def acquire(self, processes: Sequence[str] = ()) -> None:
        """Take the lock; create the folder if it does not exist.

        Args:
            processes: ``host:pid`` of every process of the run.

        Raises:
            RunFolderError: another run holds it; the message names its process.
            CannotWrite: the folder cannot be written.
        """
        make_folder(self.folder)
        with writing(self.folder / LOCK_FILE):
            if not self._try(_AT_ONCE_SECONDS):
                holder = read_holder(self._lease)
                if holder is not None and holder.can_be_examined:
                    raise RunFolderError(self._refusal(holder))
                logger.info("{} is in use by {}: waiting for a sign of life", self.folder, self._name_of(holder))
                # Longer than a lease, or the end of one would be missed.
                if not self._try(self._lease_seconds * 1.1 + 1):
                    raise RunFolderError(self._refusal(holder))
        remove_partial(self.folder)
        try:
            content = json.dumps(attrs.asdict(Holder.this_process(processes)), indent=1)
            write_atomically(self.folder / HOLDER_FILE, content + "\n")
        except BaseException:
            self._lease.release()
            raise

    def release(self) -> None:
        """Release the folder, if this process holds it."""
        if not self._lease.is_locked:
            return
        with suppress(OSError):  # the folder may be gone
            if self._lease.is_lock_held_by_us:
                (self.folder / HOLDER_FILE).unlink()
        with suppress(OSError):
            self._lease.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _try(self, seconds: float) -> bool:
        try:
            self._lease.acquire(timeout=seconds, poll_interval=_POLL_SECONDS)
        except Timeout:
            return False
        return True

    def _refusal(self, holder: Holder | None) -> str:
        who = self._name_of(holder)
        return (
            f"{self.folder} is in use by {who}. Wait until it ends, stop it, or choose another folder or name; "
            f"only if no such process exists, remove {self.folder / LOCK_FILE}"
        )

    def _name_of(self, holder: Holder | None) -> str:
        owner = self._lease.owner
        return str(holder or (f"process {owner.pid} on {owner.hostname}" if owner else "an unknown process"))

    def _warn(self, loss: object) -> None:
        logger.error(
            "{} is not locked any more ({}): its lock was removed or taken over. Another run may write there now",
            self.folder,
            getattr(loss, "reason", loss),
        )


@contextmanager
def locked(folder: Path, *, also_free: Sequence[Path] = ()) -> Iterator[None]:
    """Hold the lock of ``folder`` for all processes of the run, all of which must call this.

    Args:
        folder: the folder that this run writes to.
        also_free: folders that no other run may be using: those of a study's experiments, or that of the study. They
            are checked after ``folder`` is locked, so that of two runs that check each other at most one continues.

    Raises:
        RunFolderError: another run uses one of them.
        CannotWrite: ``folder`` cannot be written.
    """
    processes = from_everyone(f"{platform.node()}:{os.getpid()}")
    lock = FolderLock(folder) if rank() == 0 else None
    try:
        on_first_rank(lambda: _take(lock, processes, also_free))
        yield
    finally:
        if lock is not None:
            lock.release()


def _take(lock: FolderLock | None, processes: Sequence[str], also_free: Sequence[Path]) -> None:
    assert lock is not None
    lock.acquire(processes)
    require_free(*also_free)


def require_free(*folders: Path) -> None:
    """Refuse folders that a run is using.

    Raises:
        RunFolderError: a run uses one of them; it may be of this process.
        CannotWrite: a stale lock cannot be removed.
    """
    for folder in folders:
        if os.path.lexists(folder / LOCK_FILE):
            with FolderLock(folder):
                """It was stale, and is removed at the end."""
