"""A process that is killed ends the others, and they name it."""

import re

import pytest
import torch.distributed as dist
from processes import run_ranks

from aimcore.running import lost_processes
from aimcore.running.lock_holder import Holder
from aimcore.running.lost_processes import ProcessLost, naming_lost_processes


def test_the_others_name_the_process_that_was_killed() -> None:
    first, second = run_ranks(2, "core.running.one_dies")
    assert second.returncode == -9
    assert re.match(r"process 1 \(number \d+ on .+\) of this run has ended, .* continue with --resume", first.stdout)


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_processes, "from_everyone", lambda value: [value, value])
    monkeypatch.setattr(lost_processes, "_SECONDS", 0.0)


@pytest.mark.usefixtures("two_processes")
def test_a_process_that_cannot_be_examined_may_be_on_another_machine() -> None:
    expected = r"another of the 2 processes .* cannot be reached \(timed out\)"
    with pytest.raises(ProcessLost, match=expected), naming_lost_processes():
        raise dist.DistNetworkError("timed out")


@pytest.mark.usefixtures("two_processes")
def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="no such luck"), naming_lost_processes():
        raise RuntimeError("no such luck")


def test_a_lone_process_loses_nobody() -> None:
    assert not Holder.this_process(()).has_ended
    with pytest.raises(RuntimeError, match="gloo"), naming_lost_processes():
        raise RuntimeError("gloo: connection closed")
