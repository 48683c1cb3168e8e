"""Processes that tests start: with the signals of an ordinary process, and ended with the test whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "AIMCORE_TEST_PROCESS"
"""Environment variable by which everything that a test has started is found again, whatever its session or parent."""
LAUNCHED_BY = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@contextmanager
def ordinary_signals() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP end the process.

    What is started in the background of a script, or by nohup, ignores SIGINT or SIGHUP, and so do its children.
    """
    ordinary = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in ordinary.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def started(
    command: Sequence[object], *, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start ``command`` in a session of its own; kill it, and all that it has started, when the block ends."""
    mark = uuid.uuid4().hex
    environment = {**(os.environ if env is None else env), MARK: mark}
    with ordinary_signals():
        process = subprocess.Popen(
            [*map(str, command)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
    try:
        yield process
    finally:
        for one in marked(mark):
            with suppress(psutil.Error):
                one.kill()
        # Its pipes end with the last process that inherited them.
        with process:
            process.kill()


def run_to_end(
    command: Sequence[object], *, timeout: float = 600.0, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What ``command`` prints and returns; nothing of it is left."""
    with started(command, env=env, **options) as process:
        out, err = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def marked(mark: str) -> list[psutil.Process]:
    """Processes that a block of :func:`started` has started, directly or not."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.environ().get(MARK) == mark:
                found.append(one)
    return found


def torchrun(num_processes: int, *command: object) -> dict[str, Any]:
    """Arguments for :func:`started` and :func:`run_to_end`: ``python -m <command>`` on several processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", num_processes, "-m", *command]
    clean = {name: value for name, value in os.environ.items() if name not in LAUNCHED_BY}
    paths = [str(Path(__file__).parent), clean.get("PYTHONPATH", "")]
    return {"command": [sys.executable, *launch], "env": {**clean, "PYTHONPATH": os.pathsep.join(filter(None, paths))}}
