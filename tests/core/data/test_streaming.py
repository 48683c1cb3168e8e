import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import started

from aimcore.data.streaming import stream
from aimcore_sources import ImageFolder


class Squares:
    """Loads squares; fails at 5, and keeps count."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __getitem__(self, number: int) -> int:
        self.loaded.append(number)
        if number == 5:
            raise KeyError("five")
        return number * number


class NumThreads:
    """Loads the number of threads that tensor operations use where it runs."""

    def __getitem__(self, number: int) -> int:
        return torch.get_num_threads()


def data_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aimcore-data")]


def test_items_come_in_order() -> None:
    assert list(stream(Squares(), range(6, 20), num_workers=0, ahead=3)) == [n * n for n in range(6, 20)]
    assert list(stream(Squares(), range(0), num_workers=0, ahead=3)) == []


def test_no_more_is_loaded_ahead_than_asked() -> None:
    squares = Squares()
    items = stream(squares, range(6, 100), num_workers=0, ahead=3)
    assert [next(items), next(items)] == [36, 49]
    items.close()
    # Two were taken; at most three more wait or are being loaded.
    assert len(squares.loaded) <= 5


def test_closing_ends_the_thread() -> None:
    items = stream(Squares(), range(6, 100), num_workers=0, ahead=3)
    next(items)
    assert data_threads()
    items.close()
    assert not data_threads()


def test_an_exception_arrives_in_its_items_turn() -> None:
    items = stream(Squares(), range(3, 9), num_workers=0, ahead=4)
    assert [next(items), next(items)] == [9, 16]
    with pytest.raises(KeyError, match="five"):
        next(items)
    assert not data_threads()


def test_the_thread_keeps_off_the_threads_of_training() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(stream(NumThreads(), range(3), num_workers=0, ahead=1)) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


SCRIPT = """
import signal, sys
from aimcore import Data
from aimcore.data import train_steps
from aimcore_sources import ImageFolder

if __name__ == "__main__":
    source = ImageFolder(url=sys.argv[1])
    data = Data(train=source, validation=source, batch_size=8, image_size=8, num_workers=2)
    steps = train_steps(data, source.open(), patch_size=4, seed=0, num_steps=10**9)
    heard, since = [], 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: heard.append(number))
    try:
        for number, _ in enumerate(steps):
            if number == 2:
                print("running", flush=True)
            since += len(heard) == 2
            if since == 20:
                print("still running", flush=True)
    except KeyboardInterrupt:
        steps.close()
        print("interrupted", flush=True)
"""


@pytest.fixture
def running(folder: ImageFolder, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run with two data processes, in a process group of its own, after its third step."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with started([sys.executable, script, folder.url], fork=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process


def test_signals_to_the_group_reach_the_parent_alone(running: subprocess.Popen[str]) -> None:
    # As terminals and schedulers do: to every process of the group.
    os.killpg(running.pid, signal.SIGTERM)
    os.killpg(running.pid, signal.SIGHUP)
    assert running.stdout is not None
    # Items of both data processes arrive after that.
    assert running.stdout.readline() == "still running\n"
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (out, err, running.returncode) == ("interrupted\n", "", 0)


def test_data_processes_do_not_outlive_a_killed_parent(running: subprocess.Popen[str]) -> None:
    running.kill()
    # The pipe ends when the last process that inherited it does; else this times out.
    out, _ = running.communicate(timeout=60)
    assert (out, running.returncode) == ("", -signal.SIGKILL)
