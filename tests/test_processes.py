"""What a test starts is ended with the test, whatever happens."""

import signal
import sys
import time

import psutil
import pytest
from processes import ordinary_signals, run_to_end, started

STARTS_ANOTHER = """
import os, sys
from subprocess import Popen
other = Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(other.pid, flush=True)
os._exit(0)
"""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def fail_with_others_running(others: list[int]) -> None:
    with started([sys.executable, "-c", STARTS_ANOTHER]) as one:
        assert one.stdout is not None
        others.append(int(one.stdout.readline()))
        one.wait(timeout=60)
        assert is_alive(others[0])
        raise RecursionError


def test_a_process_of_another_session_whose_parent_has_ended_is_ended_too() -> None:
    others: list[int] = []
    with pytest.raises(RecursionError):
        fail_with_others_running(others)
    deadline = time.monotonic() + 60
    while is_alive(others[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(others[0])


@pytest.mark.usefixtures("ordinary_signals")
def test_a_process_has_ordinary_signals_where_pytest_ignores_them() -> None:
    asked = "import signal; print([signal.getsignal(n) is h for n, h in "
    asked += "[(2, signal.default_int_handler), (15, signal.SIG_DFL), (1, signal.SIG_DFL)]])"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assert run_to_end([sys.executable, "-c", asked]).stdout == "[True, True, True]\n"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with ordinary_signals():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
