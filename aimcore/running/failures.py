"""What becomes of an error in one experiment: it is written down, and the study goes on."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

from loguru import logger

from aimcore.errors import RunFailed
from aimcore.report.summary import Status
from aimcore.running.processes import rank

ERROR_FILE = "error.txt"


class Supervised:
    """Runs its block so that nothing but the end of the process gets out, and remembers how it ended.

    Ctrl-C counts as interrupted, every other error as failed; its traceback goes to ``error.txt``. This is the one
    place that catches what it does not know: an experiment may fail in any plugin's code, and the others must go on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status: Status = "finished"
        self.error: str | None = None
        """The error in a line, for the summary."""

    def __enter__(self) -> Self:
        if rank() == 0:
            (self.folder / ERROR_FILE).unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self.status = "interrupted"
            return True
        if not isinstance(error, Exception):
            return error is None
        self.status = "failed"
        self.error = f"{type(error).__name__}: {error}"
        self._write("".join(traceback.format_exception(error)))
        return True

    def _write(self, text: str) -> None:
        path = self.folder / ERROR_FILE
        logger.error("{}: {}", self.folder.name, self.error)
        if rank() == 0:
            path.write_text(text, encoding="utf-8")
            logger.error("{}: the whole traceback is in {}", self.folder.name, path)
            # For those who call from Python: the log is silent there.
            warnings.warn(f"{self.folder.name} failed: {self.error}; see {path}", RunFailed, stacklevel=5)
