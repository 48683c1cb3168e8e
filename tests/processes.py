"""Processes that tests start: with the signals of an ordinary process, and ended with the test whatever happens."""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

MARK = "AIMCORE_TEST_PROCESS"
"""Environment variable by which everything that a test has started is found again, whatever its session or parent."""
LAUNCHED_BY = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
TESTS = Path(__file__).parent


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


class Server:
    """The parent's side of a :mod:`fork_server`."""

    def __init__(self) -> None:
        self._connection, other = socket.socketpair()
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # only a process of one thread can fork
        with ordinary_signals(), closing(other):
            self._process = subprocess.Popen(
                [sys.executable, TESTS / "fork_server.py", str(other.fileno())],
                env=os.environ | one_thread,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )

    def fork(self, descriptors: Sequence[int], **request: object) -> int:
        """Start a process with these descriptors (see :data:`fork_server.NUM_DESCRIPTORS`); return its number."""
        message = json.dumps(request).encode()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        self._connection.sendmsg([len(message).to_bytes(8, "big")], [rights])
        self._connection.sendall(message)
        answer = self._connection.recv(8)
        if not answer:
            raise RuntimeError(f"the fork server has ended with {self._process.wait()}")
        return int.from_bytes(answer, "big")

    def close(self) -> None:
        """End the server; what it has forked goes on."""
        self._connection.close()
        self._process.wait()


@cache
def server() -> Server:
    """The fork server of this process, started when it is first needed."""
    return Server()


def end_server() -> None:
    """End the fork server, if it was started."""
    if server.cache_info().currsize:
        server().close()
        server.cache_clear()


class Forked(subprocess.Popen[str]):
    """A process that the fork server starts instead of a new interpreter."""

    def _execute_child(self, args: Any, *given: Any, **named: Any) -> None:
        """Called by Popen, which has made the pipes: they are the last six descriptors of its arguments."""
        names = ("executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo", "creationflags")
        names += ("shell", "p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        options = {**dict(zip(names, given, strict=False)), **named}
        stdin, stdout, stderr = (options[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        self._report, report = os.pipe()
        with ExitStack() as opened:
            opened.callback(os.close, report)
            for descriptor in (stdout, stderr):
                opened.callback(os.close, descriptor)
            if stdin == -1:
                stdin = os.open(os.devnull, os.O_RDONLY)
            opened.callback(os.close, stdin)
            folder = os.fspath(options["cwd"] or os.getcwd())
            request = {"arguments": args[1:], "environment": options["env"], "cwd": folder}
            self.pid = server().fork([stdin, stdout, stderr, report], **request)
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        raise NotImplementedError

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._wait(timeout=0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        """Wait until the server reports how the process ended."""
        if self.returncode is None:
            ready, _, _ = select.select([self._report], [], [], timeout)
            if not ready:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            said = os.read(self._report, 64)
            os.close(self._report)
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode


@contextmanager
def started(
    command: Sequence[object], *, env: Mapping[str, str] | None = None, fork: bool = False, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start ``command`` in a session of its own; kill it, and all that it has started, when the block ends.

    Args:
        command: what to run.
        env: its whole environment; by default this process's.
        fork: whether ``command``, which begins with ``sys.executable``, may be a fork of a process that has imported
            torch, DeepSpeed and the core, see :mod:`fork_server`.
        options: others of Popen.
    """
    mark = uuid.uuid4().hex
    environment = {**(os.environ if env is None else env), MARK: mark}
    with ordinary_signals():
        process = (Forked if fork else subprocess.Popen)(
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
        for one in [*marked(mark), *(of_session(process.pid) if fork else [])]:
            with suppress(psutil.Error):
                one.kill()
        # Its pipes end with the last process that inherited them.
        with process:
            process.kill()


def run_to_end(
    command: Sequence[object], *, timeout: float = 600.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What ``command`` prints and returns; nothing of it is left. For ``options`` see :func:`started`."""
    with started(command, **options) as process:
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


def of_session(number: int) -> list[psutil.Process]:
    """Processes of the session that a forked process has begun: their environment under /proc is the server's."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(one.pid) == number:
                found.append(one)
    return found


def run_ranks(num_processes: int, *command: object, **options: Any) -> list[subprocess.CompletedProcess[str]]:
    """``python -m <command>`` on several processes, forked with the variables that torchrun would set."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
    environment = {**launched_env(), **meeting, **sizes, **options.pop("env", {})}
    with ExitStack() as stack:
        ranks = []
        for rank in map(str, range(num_processes)):
            env = {**environment, "RANK": rank, "LOCAL_RANK": rank}
            process = started([sys.executable, "-m", *command], env=env, fork=True, **options)
            ranks.append(stack.enter_context(process))
        printed = [rank.communicate(timeout=600) for rank in ranks]
    return [
        subprocess.CompletedProcess(rank.args, rank.returncode, *said)
        for rank, said in zip(ranks, printed, strict=True)
    ]


def launched_env() -> dict[str, str]:
    """This process's environment for a launcher: with the tests on the import path, without the variables of ranks."""
    return {name: value for name, value in os.environ.items() if name not in LAUNCHED_BY} | python_path(TESTS)


def python_path(*folders: Path) -> dict[str, str]:
    """PYTHONPATH of this process with more folders before it."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH", "")]))}
