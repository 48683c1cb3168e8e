"""Errors in one experiment: they are recorded, and the study continues."""

from __future__ import annotations

import traceback
import warnings
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from loguru import logger

from aimcore.contracts.errors import AimcoreError, RunFailed
from aimcore.io.atomic_files import CannotWrite, write_atomically
from aimcore.io.launcher import rank
from aimcore.io.run_folder import RunFolder
from aimcore.io.signals import termination_interrupts
from aimcore.running.summary import Status


class Supervision:
    """A context that catches every error of its block except the end of the process, and records how the block ended.

    Ctrl-C, SIGTERM and SIGHUP count as interrupted, every other error as failed; its traceback is written to
    ``error.txt``. Errors of any type are caught here, because an experiment may fail in any plugin's code and the other
    experiments must continue.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._signals = ExitStack()
        self.status: Status = "finished"
        self.error: str | None = None
        """The error in one line, for the summary."""

    def __enter__(self) -> Self:
        self._signals.enter_context(termination_interrupts())
        if rank() == 0:
            with suppress(OSError):  # if it cannot be removed, writing it fails too and is reported below
                self.run.error.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._signals.close()
        if isinstance(error, KeyboardInterrupt):
            self.status = "interrupted"
            return True
        if not isinstance(error, Exception):
            return error is None
        self.status = "failed"
        self.error = f"{type(error).__name__}: {error}"
        logger.error("{}: {}", self.run.path.name, self.error)
        if rank() == 0:
            where = self._keep(error)
            # For callers in Python, where the log is disabled.
            warnings.warn(f"{self.run.path.name} failed: {self.error}{where}", RunFailed, stacklevel=4)
        return True

    def _keep(self, error: Exception) -> str:
        """Write the traceback to its file, or to the log if that fails; return a text for a message that says where."""
        path, text = self.run.error, "".join(traceback.format_exception(error))
        try:
            write_atomically(path, text.encode(errors="replace"))
        except CannotWrite as refused:
            # The message of an AimcoreError suffices without its traceback.
            where = f"; {refused.problem}" + ("" if isinstance(error, AimcoreError) else f". The traceback:\n{text}")
            logger.error("{}: {}", self.run.path.name, where.removeprefix("; "))
            return where
        logger.error("{}: the whole traceback is in {}", self.run.path.name, path)
        return f"; see {path}"
