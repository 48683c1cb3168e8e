"""Copies of complete checkpoints at a URL, made in the background while training continues.

A copy is complete when its manifest is there, which is written last. A copy that is complete is never written again.
If checkpoints are saved faster than they are copied, those in between are left out.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from loguru import logger

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import printable, shown
from aimcore.engine.checkpoint_checks import damage_of
from aimcore.experiment import Experiment
from aimcore.io.atomic_files import PARTIAL, make_folder, publish_folder, writing
from aimcore.io.locations import file_system, with_store_errors
from aimcore.io.retries import RetriedFile, StoreUnavailable, with_retries
from aimcore.io.run_folder import MANIFEST_FILE, RunFolder, checkpoint_name, step_of, step_of_name

_DELAYS = (1.0, 5.0, 25.0)
"""Seconds before each further attempt."""
_PROBE = ".aimcore-can-write"
_CHUNK = 64 * 2**20
"""Bytes that are read at once."""


class CopyIncomplete(AimcoreError):
    """A file of a copy has another size than the original."""


class CopyUnreadable(AimcoreError):
    """A run should begin with a copy of a checkpoint, and the store of copies cannot be read."""


class CheckpointCopies:
    """Copies the checkpoints of a run to ``<url>/<run>/checkpoints``; a context that waits for the last copy."""

    def __init__(self, url: str, run: str, keep: int) -> None:
        """Prepare; nothing is written yet.

        Args:
            url: any fsspec URL, the same for all runs of a study.
            run: the run's name.
            keep: number of newest copies to keep.

        Raises:
            LocationError: the URL cannot be opened.
        """
        self.url = f"{url.rstrip('/')}/{run}/checkpoints"
        self.keep = keep
        self._files, self._root = file_system(self.url)
        self._lock = Lock()
        self._waiting: Path | None = None
        self._copying: Path | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint-copies")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and not self._last.done():
            logger.info("waiting until the last checkpoint is copied to {}", self.url)
        self._thread.shutdown()
        fault = None if self._last is None else self._last.exception()
        if fault is not None:
            self._warn(fault)

    @property
    def held_steps(self) -> Collection[int]:
        """Steps of the checkpoints that are being copied, or are next: they must not be removed."""
        with self._lock:
            return [step_of(path) for path in (self._waiting, self._copying) if path is not None]

    def add(self, checkpoint: Path) -> None:
        """Copy a complete checkpoint, as soon as the one before is copied."""
        with self._lock:
            self._waiting = checkpoint
        self._last = self._thread.submit(self._copy_newest)

    def require_writable(self) -> None:
        """Write a small file and remove it.

        Raises:
            OSError: the URL cannot be written.
        """
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{_PROBE}", b"")
        self._files.rm_file(f"{self._root}/{_PROBE}")

    def restore(self, run: RunFolder) -> Path | None:
        """Copy the newest intact checkpoint back into ``run``, and return it; None if there is no complete copy.

        Raises:
            CopyUnreadable: the store cannot be read, after several attempts, or every copy is damaged.
            CannotWrite: the system refuses the files of the run.
        """
        damaged = []
        try:
            for step in sorted(with_retries(self.url, self._complete_steps), reverse=True):
                restored = self._fetch(run, step)
                problem = damage_of(restored)
                if problem is None:
                    return restored
                shutil.rmtree(restored)
                damaged.append(f"{restored.name}: {problem}")
                logger.warning("the copy at {} is damaged ({}): the one before it is tried", self.url, damaged[-1])
        except with_store_errors(OSError, StoreUnavailable) as error:
            said = f"{type(error).__name__}: {printable(str(error))}"
            raise self._unreadable(run, f"cannot be read ({said})") from error
        if damaged:
            raise self._unreadable(run, f"are damaged ({'; '.join(damaged)})")
        return None

    def _unreadable(self, run: RunFolder, problem: str) -> CopyUnreadable:
        return CopyUnreadable(
            f"{run.path} has no checkpoint, and the copies of its checkpoints at {shown(self.url)} {problem}. Nothing "
            "was trained or changed: repair the access to the store and resume again, or set engine.checkpoint_copies "
            "to null to begin at step 0"
        )

    def _fetch(self, run: RunFolder, step: int) -> Path:
        """Copy a checkpoint back, whole or not at all."""
        final = run.checkpoint(step)
        partial = final.with_name(final.name + PARTIAL)
        make_folder(partial)
        for name in with_retries(self.url, lambda: self._names(final.name)):
            self._download(f"{final.name}/{name}", partial / name)
        publish_folder(partial, final)
        return final

    def _download(self, name: str, target: Path) -> None:
        with self._files.open(f"{self._root}/{name}", "rb") as stored:
            source = RetriedFile(self.url, stored)
            with writing(target):
                target.write_bytes(b"")
            while chunk := source.read(_CHUNK):
                with writing(target), target.open("ab") as file:
                    file.write(chunk)

    def _copy_newest(self) -> None:
        with self._lock:
            self._copying, self._waiting = self._waiting, None
        if self._copying is None:  # an earlier call has copied a newer one
            return
        try:
            self._copy_repeatedly(self._copying)
        finally:
            with self._lock:
                self._copying = None

    def _copy_repeatedly(self, checkpoint: Path) -> None:
        for delay in (*_DELAYS, None):
            try:
                self._copy(checkpoint)
                self._prune()
            except (OSError, RuntimeError, ValueError) as error:  # AimcoreError is a ValueError
                if delay is None:
                    self._warn(error)
                    return
                time.sleep(delay)
            else:
                logger.info("copied {} to {}", checkpoint.name, self.url)
                return

    def _copy(self, checkpoint: Path) -> None:
        target = f"{self._root}/{checkpoint.name}"
        if self._files.exists(f"{target}/{MANIFEST_FILE}"):
            return
        self._files.makedirs(target, exist_ok=True)
        files = sorted(path for path in checkpoint.iterdir() if path.name != MANIFEST_FILE)
        for path in (*files, checkpoint / MANIFEST_FILE):
            self._files.put_file(str(path), f"{target}/{path.name}")
            size = self._files.size(f"{target}/{path.name}")
            if size != path.stat().st_size:
                raise CopyIncomplete(f"{target}/{path.name} has {size} bytes instead of {path.stat().st_size}")

    def _prune(self) -> None:
        """Remove all but the newest copies; of each the manifest first, so that a rest counts as incomplete."""
        for step in sorted(self._complete_steps())[: -self.keep]:
            old = f"{self._root}/{checkpoint_name(step)}"
            self._files.rm_file(f"{old}/{MANIFEST_FILE}")
            self._files.rm(old, recursive=True)

    def _complete_steps(self) -> list[int]:
        if not self._files.exists(self._root):
            return []
        folders = {Path(str(each).rstrip("/")).name for each in self._files.ls(self._root, detail=False)}
        steps = [step for step in map(step_of_name, folders) if step is not None]
        return [step for step in steps if self._files.exists(f"{self._root}/{checkpoint_name(step)}/{MANIFEST_FILE}")]

    def _names(self, folder: str) -> list[str]:
        found: list[Any] = self._files.ls(f"{self._root}/{folder}", detail=False)
        names = sorted(Path(str(each)).name for each in found)
        return [*(name for name in names if name != MANIFEST_FILE), MANIFEST_FILE]

    def _warn(self, error: BaseException) -> None:
        logger.warning(
            "checkpoints cannot be copied to {} ({}: {}): training continues, and the next checkpoint is tried again",
            self.url,
            type(error).__name__,
            error,
        )


def copies_of(experiment: Experiment) -> CheckpointCopies | None:
    """Return what copies the checkpoints of a run; None if they are not copied."""
    url, keep = experiment.engine.checkpoint_copies, experiment.engine.keep_checkpoints
    return None if url is None else CheckpointCopies(url, experiment.name, keep)
