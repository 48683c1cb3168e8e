"""Ctrl-C as a flag."""

import os
import signal

import pytest

from aimcore.engine.interruption import Interruption


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_flag(number: int) -> None:
    with Interruption() as interruption:
        assert not interruption.requested
        press(number)
        assert interruption.requested


def test_a_second_ctrl_c_aborts() -> None:
    now = iter([0.0, 5.0])
    with Interruption(clock=lambda: next(now)):
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_launchers_echo_of_the_first_ctrl_c_does_not_abort() -> None:
    now = iter([0.0, 0.5, 5.0])
    with Interruption(clock=lambda: next(now)) as interruption:
        press()
        press()
        press(signal.SIGTERM)
        assert interruption.requested


def test_the_handlers_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
