"""The end of another process of a run: which process it was, instead of the error of a broken connection."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aimcore.contracts.errors import AimcoreError
from aimcore.engine.distributed import from_everyone, is_broken_connection
from aimcore.running.lock_holder import Holder

_SECONDS = 2.0
"""How long to look for a process that has ended: its connections break before the system lists it as ended."""


class ProcessLost(AimcoreError):
    """Another process of the run has ended, so that this one cannot continue."""


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """A context that names the process that has ended when a collective fails. Every process calls this.

    Raises:
        ProcessLost: another process has ended, or cannot be reached.
    """
    processes = from_everyone(Holder.this_process(()))
    try:
        yield
    except RuntimeError as error:
        if len(processes) == 1 or not is_broken_connection(error):
            raise
        raise ProcessLost(_message(processes, str(error))) from error


def _message(processes: Sequence[Holder], error: str) -> str:
    ended = _ended(processes)
    advice = (
        "Its own output says why, or the system's log if it was killed, for example for lack of memory. Remove the "
        "cause and continue with --resume"
    )
    if not ended:
        return (
            f"the connection to another of the {len(processes)} processes of this run is broken: it has ended, or its "
            f"machine cannot be reached ({error.splitlines()[0][:200]}). {advice}"
        )
    names = ", ".join(f"{rank} (number {processes[rank].pid} on {processes[rank].host})" for rank in ended)
    return f"process {names} of this run has ended, and the others cannot continue without it. {advice}"


def _ended(processes: Sequence[Holder]) -> list[int]:
    """Return the ranks of the processes that are known to have ended; wait a little until there is one."""
    deadline = time.monotonic() + _SECONDS
    while True:
        found = [rank for rank, process in enumerate(processes) if process.has_ended]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
