"""What a test starts is ended with the test, whatever happens."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import MARK, ordinary_signals, python_path, run_ranks, run_to_end, started

STARTS_ANOTHER = """
import os, sys
from subprocess import Popen
other = Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(other.pid, flush=True)
os._exit(0)
"""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def fail_with_others_running(others: list[int], fork: bool) -> None:
    with started([sys.executable, "-c", STARTS_ANOTHER], fork=fork) as one:
        assert one.stdout is not None
        others.append(int(one.stdout.readline()))
        one.wait(timeout=60)
        assert is_alive(others[0])
        raise RecursionError


@pytest.mark.parametrize("fork", [False, True])
def test_a_process_of_another_session_whose_parent_has_ended_is_ended_too(fork: bool) -> None:
    others: list[int] = []
    with pytest.raises(RecursionError):
        fail_with_others_running(others, fork)
    deadline = time.monotonic() + 60
    while is_alive(others[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(others[0])


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.usefixtures("ordinary_signals")
def test_a_process_has_ordinary_signals_where_pytest_ignores_them(fork: bool) -> None:
    asked = "import signal; print([signal.getsignal(n) is h for n, h in "
    asked += "[(2, signal.default_int_handler), (15, signal.SIG_DFL), (1, signal.SIG_DFL)]])"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assert run_to_end([sys.executable, "-c", asked], fork=fork).stdout == "[True, True, True]\n"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with ordinary_signals():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def both(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a fork prints and returns, which must be what a new interpreter does."""
    new, forked = (run_to_end([sys.executable, *arguments], fork=fork, **options) for fork in (False, True))
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)
    return forked


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print('said')", 0),
        ("import sys; print('not flushed', end=''); sys.exit(7)", 7),
        ("import sys; sys.exit('a reason')", 1),
        ("import sys; sys.exit(-1)", 255),
        ("def fail():\n    raise ValueError('on purpose')\nfail()", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os; os._exit(9)", 9),
        ("import atexit; atexit.register(print, 'last'); print('first')", 0),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()", 0),
        ("import sys; sys.stdout.close()", 0),
        ("this is no Python", 1),
    ],
)
def test_a_fork_ends_as_a_new_interpreter_does(code: str, status: int) -> None:
    assert both("-c", code).returncode == status


STATE = """
import json, os, signal, sys
handlers = [signal.getsignal(number) is handler for number, handler in
            [(2, signal.default_int_handler), (15, signal.SIG_DFL), (1, signal.SIG_DFL), (17, signal.SIG_DFL)]]
print(json.dumps([sys.argv, sys.path, sys.executable, os.getcwd(), dict(os.environ), handlers, __name__,
                  sys.stdin.read(), vars(sys.modules["__main__"]) is globals(), os.getsid(0) == os.getpid()]))
"""


@pytest.mark.parametrize("way", ["-c", "-m", "script"])
def test_a_fork_finds_what_a_new_interpreter_finds(way: str, tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(STATE)
    arguments = {"-c": ["-c", STATE], "-m": ["-m", "told"], "script": [tmp_path / "told.py"]}[way]
    environment = {"PYTHONPATH": f"{tmp_path}:/of/nobody", "HOME": "/", "LC_ALL": "C.UTF-8"}
    found = []
    for fork in (False, True):
        done = run_to_end([sys.executable, *arguments, "a", "b c"], env=environment, cwd=tmp_path, fork=fork)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert len(told[4].pop(MARK)) == 32
        found.append(told)
    assert found[1] == found[0]
    assert found[1][5] == [True] * 4


def test_a_fork_reads_and_writes_through_pipes() -> None:
    with started([sys.executable, "-c", "print(input()); print(input())"], fork=True, stdin=subprocess.PIPE) as one:
        assert one.poll() is None
        assert one.communicate("first\nsecond\n") == ("first\nsecond\n", "")
        assert one.returncode == 0


def test_who_waits_too_long_for_a_fork_is_told() -> None:
    with started([sys.executable, "-c", "import time; time.sleep(600)"], fork=True) as one:
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(timeout=0.01)
        one.send_signal(signal.SIGTERM)
        assert one.wait(timeout=60) == -signal.SIGTERM


def test_a_fork_has_what_is_slow_to_import() -> None:
    asked = "import sys; print([name in sys.modules for name in ('torch', 'deepspeed', 'aimcore')])"
    assert run_to_end([sys.executable, "-c", asked], fork=True).stdout == "[True, True, True]\n"


def test_forked_ranks_are_told_who_they_are(tmp_path: Path) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
    (tmp_path / "rank.py").write_text(f"import os; print(*map(os.environ.get, {names}))")
    ranks = run_ranks(2, "rank", env=python_path(tmp_path))
    assert [rank.stdout for rank in ranks] == ["0 0 2 2 127.0.0.1\n", "1 1 2 2 127.0.0.1\n"]
