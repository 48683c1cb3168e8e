"""Signals, and the death of the launcher, as a flag."""

import os
import signal

import pytest

from aimcore.engine.interruption import Interruption

pytestmark = pytest.mark.usefixtures("ordinary_signals")


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
    with Interruption() as interruption:
        press(number)
        assert not interruption.requested
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_handler_that_python_cannot_put_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with Interruption(), pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.parametrize("launcher", ["TORCHELASTIC_RUN_ID", "CROSS_RANK", None])
def test_the_death_of_a_launcher_counts_and_that_of_a_shell_does_not(
    launcher: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "CROSS_RANK"):
        monkeypatch.delenv(name, raising=False)
    if launcher is not None:
        monkeypatch.setenv(launcher, "1")
    parents = iter([100, 100, 1])
    interruption = Interruption(parent=lambda: next(parents))
    if launcher is None:
        assert not any(interruption.requested for _ in range(3))
    else:
        assert [interruption.requested, interruption.requested] == [False, True]
