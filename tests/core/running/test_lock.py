"""A folder of results belongs to one run at a time."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger
from processes import python_path, run_ranks, run_to_end, started

from aimcore.contracts.errors import RunFailed, RunFolderError
from aimcore.io.atomic_files import CannotWrite
from aimcore.io.run_folder import HOLDER_FILE, LOCK_FILE
from aimcore.running.experiment_run import run_experiment
from aimcore.running.folder_lock import FolderLock, require_free
from aimcore.running.lock_holder import Holder, read_holder
from aimcore.running.study_run import run_study

SHORT = 0.4
"""Seconds of a lease, where a test waits for its end."""


@pytest.fixture
def warned() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lines.append, level="INFO", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def left_behind(folder: Path, **changes: Any) -> None:
    """The lock of a run that was killed; ``changes`` are fields of its marker, None removes one."""
    with FolderLock(folder, SHORT):
        marker = (folder / LOCK_FILE).read_text()
        holder = (folder / HOLDER_FILE).read_text()
    for name, value in changes.items():
        marker = re.sub(rf"^{name}=.*\n", "" if value is None else f"{name}={value}\n", marker, flags=re.MULTILINE)
    (folder / LOCK_FILE).write_text(marker)
    known = {"host": changes["host"]} if "host" in changes else {}
    known |= {"pid": changes["pid"]} if "pid" in changes else {}
    (folder / HOLDER_FILE).write_text(json.dumps(json.loads(holder) | known))


def test_the_message_says_who_holds_a_folder_since_when(tmp_path: Path) -> None:
    before = time.strftime("%Y-%m-%d %H")
    lock = FolderLock(tmp_path)
    lock.acquire([f"here:{os.getpid()}", "there:2"])
    with pytest.raises(RunFolderError) as raised:
        FolderLock(tmp_path).acquire()
    lock.release()
    message = str(raised.value)
    assert message.startswith(f"{tmp_path} is in use by process {os.getpid()} on {os.uname().nodename} since ")
    assert before in message or time.strftime("%Y-%m-%d %H") in message
    assert f"with here:{os.getpid()}, there:2. Wait until it ends, stop it, or choose another folder" in message
    assert "pytest" in message  # the command


def test_a_folder_is_free_again_afterwards_and_nothing_is_left(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new"):
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [LOCK_FILE, HOLDER_FILE]
    with FolderLock(tmp_path / "new"):
        """Taken again."""
    assert list((tmp_path / "new").iterdir()) == []


def test_a_refused_run_leaves_the_lock_alone(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        before = {path.name: path.read_text() for path in tmp_path.iterdir()}
        refused = FolderLock(tmp_path)
        with pytest.raises(RunFolderError):
            refused.acquire()
        refused.release()
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path: Path) -> None:
    ended = run_to_end([sys.executable, "-c", "import os; print(os.getpid())"])
    left_behind(tmp_path, pid=int(ended.stdout))
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == os.getpid()


def test_a_number_that_another_process_has_now_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    with started([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        left_behind(tmp_path, pid=other.pid)  # with the start time of this process
        require_free(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_silent_lock_of_another_machine_is_taken_over_after_its_lease(tmp_path: Path, warned: list[str]) -> None:
    left_behind(tmp_path, host="elsewhere")
    with FolderLock(tmp_path, SHORT):
        assert json.loads((tmp_path / HOLDER_FILE).read_text())["host"] == os.uname().nodename
    assert f"in use by process {os.getpid()} on elsewhere since" in warned[0]
    assert warned[0].endswith("waiting for a sign of life\n")


def test_a_process_that_nobody_buries_does_not_hold_a_lock(tmp_path: Path) -> None:
    with started([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
        left_behind(tmp_path, pid=zombie.pid, start=None)
        with FolderLock(tmp_path, SHORT):
            """It is free."""


def test_a_lock_that_was_removed_is_missed(tmp_path: Path, warned: list[str]) -> None:
    with FolderLock(tmp_path, SHORT):
        (tmp_path / LOCK_FILE).unlink()
        deadline = time.monotonic() + 60
        while not warned and time.monotonic() < deadline:
            time.sleep(0.05)
    assert warned == [
        f"{tmp_path} is not locked any more (marker-missing): its lock was removed or taken over. Another run may "
        "write there now\n"
    ]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="a part of the path is a file"):
        FolderLock(tmp_path / "file").acquire()

    def full(*_: object) -> None:
        raise CannotWrite(str(tmp_path / HOLDER_FILE), "full")

    monkeypatch.setattr("aimcore.running.folder_lock.write_atomically", full)
    with pytest.raises(CannotWrite, match="full"):
        FolderLock(tmp_path).acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_files_that_disagree_name_no_holder(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        holder = json.loads((tmp_path / HOLDER_FILE).read_text())
        (tmp_path / HOLDER_FILE).write_text(json.dumps(holder | {"pid": 1}))
        refused = FolderLock(tmp_path, 120.0)
        assert read_holder(refused._lease) is None
        assert refused._name_of(None) == f"process {os.getpid()} on {refused._lease.owner.hostname}"


@pytest.mark.usefixtures("training")
class TestRuns:
    def attempts(self, study: Any, out: Path) -> list[str]:
        """The errors of a second start of the same study, and of one that resumes."""
        reported = []
        for resume in (False, True):
            with pytest.raises(RunFolderError) as raised:
                run_study(study, out, scale="smoke", resume=resume)
            reported.append(str(raised.value))
        return reported

    def test_a_second_start_and_a_resumption_next_to_a_run_are_refused(
        self, make_study: Any, training: Any, tmp_path: Path
    ) -> None:
        reported: list[str] = []
        files: list[dict[str, float]] = []

        def behave() -> None:
            files.append({str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")})
            reported.extend(self.attempts(make_study("one"), tmp_path))
            files.append({str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")})

        training.behaviours["one"] = behave
        run_study(make_study("one"), tmp_path, scale="smoke")
        assert all(f"is in use by process {os.getpid()}" in message for message in reported)
        assert len(reported) == 2
        assert files[0] == files[1]
        assert not (tmp_path / LOCK_FILE).exists()

    @pytest.mark.parametrize(
        ("error", "ends"),
        [
            (KeyboardInterrupt, nullcontext()),
            (RuntimeError, pytest.warns(RunFailed)),
            (SystemExit, pytest.raises(SystemExit)),
        ],
    )
    def test_however_a_run_ends_its_folder_is_free(
        self, error: type[BaseException], ends: Any, make_study: Any, training: Any, tmp_path: Path
    ) -> None:
        def behave() -> None:
            raise error

        training.behaviours["one"] = behave
        with ends:
            run_study(make_study("one"), tmp_path, scale="smoke")
        assert not list(tmp_path.rglob(".lock*"))

    def test_experiments_of_python_may_share_a_folder_by_other_names(
        self, make_experiment: Any, training: Any, tmp_path: Path
    ) -> None:
        reported: list[str] = []

        def behave() -> None:
            reported.append(run_experiment(make_experiment("two"), tmp_path).status)
            with pytest.raises(RunFolderError, match="one is in use by process"):
                run_experiment(make_experiment("one"), tmp_path)

        training.behaviours["one"] = behave
        assert run_experiment(make_experiment("one"), tmp_path).status == "finished"
        assert reported == ["finished"]

    def test_a_study_and_an_experiment_of_python_do_not_share_a_folder(
        self, make_study: Any, make_experiment: Any, training: Any, tmp_path: Path
    ) -> None:
        refusals: list[str] = []

        def start_an_experiment() -> None:
            with pytest.raises(RunFolderError) as raised:
                run_experiment(make_experiment("three"), tmp_path / "study")
            refusals.append(str(raised.value))

        def start_a_study() -> None:
            with pytest.raises(RunFolderError) as raised:
                run_study(make_study("one", "two"), tmp_path / "python", scale=None)
            refusals.append(str(raised.value))

        training.behaviours = {"one": start_an_experiment, "two": start_a_study}
        run_study(make_study("one"), tmp_path / "study", scale=None)
        run_experiment(make_experiment("two"), tmp_path / "python")
        assert [message.partition(" is in use")[0] for message in refusals] == [
            str(tmp_path / "study"),
            str(tmp_path / "python" / "two"),
        ]

    def test_a_run_that_began_and_ended_during_the_checks_is_seen(
        self, make_study: Any, training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from aimcore.running import preflight as checks

        def check(*given: Any, **options: Any) -> Any:
            (tmp_path / "summary.json").write_text("{}")
            return checks.check_study(*given, **options)

        monkeypatch.setattr("aimcore.running.study_run.check_study", check)
        with pytest.raises(RunFolderError, match="holds a run already"):
            run_study(make_study("one"), tmp_path, scale=None)
        assert training.calls == []

    def test_a_stale_lock_does_not_keep_a_run_from_beginning_or_going_on(self, make_study: Any, tmp_path: Path) -> None:
        for resume in (False, True):
            left_behind(tmp_path, start=1)
            (tmp_path / ".summary.json.12.partial").write_text("half of one")
            run_study(make_study("one"), tmp_path, scale="smoke", resume=resume)
        assert not list(tmp_path.glob(".*"))


TWO_PROCESSES = """
import os, sys
from pathlib import Path
from aimcore.run import main
status = main(["study.py", "--out", "out", *sys.argv[1:]])
Path(f"status-{os.environ['RANK']}").write_text(str(status))
"""


def test_every_process_of_a_refused_run_ends_with_status_2(tmp_path: Path) -> None:
    from core.test_run import STUDY

    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "second.py").write_text(TWO_PROCESSES)
    with FolderLock(tmp_path / "out"):
        ranks = run_ranks(2, "second", env=python_path(tmp_path), cwd=tmp_path)
    assert [(tmp_path / f"status-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    assert [rank.stderr.count(f"error: out is in use by process {os.getpid()}") for rank in ranks] == [1, 1]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_holder_survives_its_file() -> None:
    holder = Holder.this_process(["a:1", "b:2"])
    assert Holder(**json.loads(json.dumps(attrs.asdict(holder)))) == attrs.evolve(holder, processes=["a:1", "b:2"])
