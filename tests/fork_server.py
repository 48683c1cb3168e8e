"""A server that has imported what most processes need, and forks them: each starts in milliseconds, not in seconds.

A forked process runs ``-m module``, ``-c code`` or a script as a new interpreter would: with its own environment,
folder, arguments, import path, session and ordinary signals. It differs in what an interpreter or a library reads when
it starts (``OMP_NUM_THREADS``, ``PYTHONWARNINGS``), in what is imported already, and in its end: modules are not torn
down. Tests of those things need a new interpreter.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "aimcore.engine.preloading",
    "aimcore.run",
    "aimcore.testing",
    "aimcore.cli.run",
    "torchvision.transforms.v2",
)
NUM_DESCRIPTORS = 4
"""Standard input, output and error of a new process, and the pipe that its exit status is written to."""


def serve(connection: socket.socket) -> None:
    """Fork a process for every request, until the other end of ``connection`` is closed."""
    base = _path_without(os.environ.get("PYTHONPATH", ""))
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    reports: dict[int, int] = {}
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([connection, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _report(reports)
        if connection in ready and not _answer(connection, base, reports, (wake, woken)):
            return


def _answer(connection: socket.socket, base: list[str], reports: dict[int, int], own: tuple[int, int]) -> bool:
    """Fork one process and reply with its number; return False at the end of the requests."""
    descriptors = array.array("i")
    length, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(NUM_DESCRIPTORS * descriptors.itemsize))
    if not length:
        return False
    descriptors.frombytes(ancillary[0][2])
    *standard, report = descriptors
    request = json.loads(_exactly(connection, int.from_bytes(length, "big")))
    pid = os.fork()
    if not pid:
        connection.close()
        for descriptor in (report, *own, *reports.values()):
            os.close(descriptor)
        _become(standard, base, **request)
    for descriptor in standard:
        os.close(descriptor)
    reports[pid] = report
    connection.sendall(pid.to_bytes(8, "big"))
    return True


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError("the request ends early")
        parts += part
    return bytes(parts)


def _report(reports: dict[int, int]) -> None:
    """Tell of each process that has ended how it ended."""
    for pid in list(reports):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            report = reports.pop(pid)
            try:
                os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
            except BrokenPipeError:
                """Nobody waits for it any more."""
            os.close(report)


def _path_without(pythonpath: str) -> list[str]:
    """The import path without the first entry (this script's folder) and those of PYTHONPATH."""
    added = pythonpath.split(os.pathsep) if pythonpath else []
    return sys.path[1 + len(added) :]


def _become(
    standard: Sequence[int], base: list[str], arguments: list[str], environment: dict[str, str], cwd: str
) -> None:
    """Run a command in this process, which was just forked, and end with its exit status."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    added = environment.get("PYTHONPATH", "")
    sys.path[:] = [*(added.split(os.pathsep) if added else []), *base]
    sys.orig_argv = [sys.executable, *arguments]
    _end(_status_of(arguments))


def _status_of(arguments: list[str]) -> int:
    """Run the command; return its exit status, negative for a signal."""
    try:
        _run(arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 (as an interpreter does)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _run(arguments: list[str]) -> None:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    first, *rest = arguments
    if first == "-m":
        module, *given = rest
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = ["-m", *given]
        sys.modules.pop(module, None)  # else runpy warns
        importlib.import_module("runpy")._run_module_as_main(module)
    elif first == "-c":
        code, *given = rest
        sys.path.insert(0, "")
        sys.argv[:] = ["-c", *given]
        exec(compile(code, "<string>", "exec"), vars(main))
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv[:] = [first, *rest]
        vars(main)["__file__"] = first
        exec(compile(Path(first).read_bytes(), first, "exec"), vars(main))


def _end(status: int) -> NoReturn:
    """End as an interpreter does, but for the modules, which are not torn down."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            status = status or 120
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    given: Any = socket.socket(fileno=int(sys.argv[1]))
    serve(given)
