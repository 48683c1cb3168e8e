"""DeepSpeed's saving and loading of files, changed so that an error on one rank can be shared with the others.

DeepSpeed has its own barriers before and after it writes files, and at stage 3 it gathers parameters during loading. If
an error on one rank skipped one of these, the other ranks would wait forever. Therefore errors of writing are kept
until after the barriers, and parameters are gathered after all ranks have loaded their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aimcore.engine.checkpoint_checks import DamageReport
from aimcore.engine.shared_errors import Attempt
from aimcore.io.atomic_files import CannotWrite, writing


class WriteAttempts:
    """DeepSpeed's checkpoint engine, with writes whose errors are kept for later."""

    def __init__(self, checkpoint_engine: Any) -> None:
        self._wrapped = checkpoint_engine
        self._error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def save(self, state_dict: Any, path: str) -> Any:
        """Write a file, unless an earlier one has failed."""
        return self.attempt(path, lambda: self._wrapped.save(state_dict, path))

    def attempt(self, path: str, act: Callable[[], Any]) -> Any:
        """Run ``act``, which writes to ``path``, unless an earlier write has failed."""
        if self._error is not None:
            return None
        attempt = Attempt()
        with attempt, writing(path):
            return act()
        error = attempt.error
        # Torch's writer of zip files raises a RuntimeError if the system refuses a write.
        self._error = CannotWrite.because(path, error) if isinstance(error, RuntimeError) else error
        return None

    def raise_error(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._error is not None:
            raise self._error


class _NamedLoads:
    """DeepSpeed's checkpoint engine, with errors that name the damaged file."""

    def __init__(self, checkpoint_engine: Any, checkpoint: Path) -> None:
        self._wrapped = checkpoint_engine
        self._checkpoint = checkpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file.

        Raises:
            CheckpointDamaged: it cannot be read.
        """
        with DamageReport(Path(path), self._checkpoint):
            return self._wrapped.load(path, map_location=map_location)


@contextmanager
def writes_deferring_errors(engine: Any) -> Iterator[WriteAttempts]:
    """Make DeepSpeed's ``engine`` write through :class:`WriteAttempts` in the block."""
    own, copy_scripts = engine.checkpoint_engine, getattr(engine, "_copy_recovery_script", None)
    writes = engine.checkpoint_engine = WriteAttempts(own)
    if copy_scripts is not None:  # at stages 1 to 3 rank 0 copies scripts between two barriers
        engine._copy_recovery_script = lambda folder: writes.attempt(folder, lambda: copy_scripts(folder))
    try:
        yield writes
    finally:
        engine.checkpoint_engine = own
        if copy_scripts is not None:
            del engine._copy_recovery_script


@contextmanager
def loads_naming_files(engine: Any, checkpoint: Path) -> Iterator[None]:
    """Make DeepSpeed's ``engine`` raise errors that name the damaged file in the block."""
    own = engine.checkpoint_engine
    engine.checkpoint_engine = _NamedLoads(own, checkpoint)
    try:
        yield
    finally:
        engine.checkpoint_engine = own


@contextmanager
def epilogue_deferred(optimizer: Any) -> Iterator[Callable[[], None]]:
    """Prevent DeepSpeed's ``optimizer`` from gathering parameters while it loads; yield a function that does it."""
    epilogue: Callable[[], None] | None = getattr(optimizer, "checkpoint_event_epilogue", None)
    if epilogue is None:
        yield lambda: None
        return
    optimizer.checkpoint_event_epilogue = lambda: None
    try:
        yield epilogue
    finally:
        del optimizer.checkpoint_event_epilogue
