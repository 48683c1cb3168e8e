"""A full, read-only or vanished disk: a record as far as possible, an error that says what is safe, no traceback."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger

from aimcore.cli.report import draw_after_run
from aimcore.contracts.errors import RunFailed, RunFolderError
from aimcore.io import atomic_files as files
from aimcore.io.atomic_files import CannotWrite
from aimcore.report import read_summary
from aimcore.running.experiment_run import run_experiment
from aimcore.running.study_run import run_study

pytestmark = pytest.mark.usefixtures("training")


@attrs.define
class Disk:
    """Refuses to write files whose names ``full`` picks."""

    full: Callable[[str], bool] = lambda _: False
    refused: list[str] = attrs.field(factory=list)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk, to_disk = Disk(), files.to_disk

    def refuse(path: Path) -> None:
        name = path.name.removeprefix(".").partition(f".{os.getpid()}")[0]
        if disk.full(name):
            disk.refused.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        to_disk(path)

    monkeypatch.setattr(files, "to_disk", refuse)
    return disk


def raising(error: Exception) -> Callable[[], None]:
    def behave() -> None:
        raise error

    return behave


def statuses(out: Path) -> dict[str, str]:
    return {entry.name: entry.status for entry in read_summary(out / "summary.json").experiments}


def test_an_error_whose_record_is_refused_is_in_the_summary_and_its_traceback_in_the_warning(
    make_study: Any, training: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.full = lambda name: name == "error.txt"
    training.behaviours["one"] = raising(RuntimeError("no such luck"))
    with pytest.warns(RunFailed) as warned:
        run_study(make_study("one", "two"), tmp_path, scale="smoke")
    assert statuses(tmp_path) == {"one": "failed", "two": "finished"}
    said = str(warned[0].message)
    assert said.startswith(
        f"one failed: RuntimeError: no such luck; cannot write {tmp_path / 'one' / 'error.txt'}: No sp"
    )
    assert "raise error" in said


def test_an_error_that_users_understand_needs_no_traceback(
    make_study: Any, training: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.full = lambda name: name == "error.txt"
    training.behaviours["one"] = raising(RunFolderError("taken"))
    with pytest.warns(RunFailed) as warned:
        run_study(make_study("one"), tmp_path, scale="smoke")
    assert "Traceback" not in str(warned[0].message)


def test_an_experiment_that_cannot_be_recorded_has_failed_and_the_others_go_on(
    make_study: Any, training: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.full = lambda name: name == "summary.json" and training.calls == [("one", False)]
    summary = run_study(make_study("one", "two"), tmp_path, scale="smoke")
    one, two = summary.experiments
    assert (one.status, one.num_steps, two.status) == ("failed", 2, "finished")
    assert one.extra["error"].startswith(
        f"CannotWrite: cannot write {tmp_path / 'summary.json'}: No space left on devi"
    )
    assert statuses(tmp_path) == {"one": "failed", "two": "finished"}
    run_study(make_study("one", "two"), tmp_path, scale="smoke", resume=True)
    assert statuses(tmp_path) == {"one": "finished", "two": "finished"}


def test_a_disk_that_stays_full_fails_every_experiment_and_ends_without_a_traceback(
    make_study: Any, training: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.full = lambda name: name in ("recipe.json", "error.txt", "summary.json")
    with pytest.warns(RunFailed):
        summary = run_study(make_study("one", "two"), tmp_path, scale="smoke")
    assert [entry.status for entry in summary.experiments] == ["failed", "failed"]
    assert disk.refused == ["recipe.json", "error.txt", "summary.json"] * 2
    assert training.calls == []


def test_a_folder_that_vanishes_is_not_made_again(make_study: Any, training: Any, tmp_path: Path) -> None:
    training.behaviours["one"] = lambda: shutil.rmtree(tmp_path / "out")
    with pytest.warns(RunFailed, match="the folder does not exist, or was removed in the meantime"):
        summary = run_study(make_study("one", "two"), tmp_path / "out", scale="smoke")
    assert [entry.status for entry in summary.experiments] == ["failed", "failed"]
    assert not (tmp_path / "out").exists()
    assert [name for name, _ in training.calls] == ["one"]


@pytest.mark.parametrize("below", ["file", "file/below", "n" * 256, "/".join(["folder"] * 1000)])
def test_a_folder_that_cannot_be_made_is_an_error_before_anything_runs(
    below: str, make_study: Any, make_experiment: Any, training: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((CannotWrite, RunFolderError), match=r"is a file, not a folder|File name too long"):
        run_study(make_study("one"), tmp_path / below, scale="smoke")
    with pytest.raises(CannotWrite, match=r"is a file, not a folder|File name too long"):
        run_experiment(make_experiment("one"), tmp_path / below)
    assert training.calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_an_error_before_anything_runs(
    make_study: Any, training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CannotWrite, match=r"out: Read-only file system \(.* free\); choose a folder on"):
        run_study(make_study("one"), tmp_path / "out", scale="smoke")
    assert training.calls == []


def test_a_report_without_a_summary_is_not_said_to_be_drawn_later(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="ERROR")
    logger.enable("aimcore")
    try:
        with pytest.warns(RunFailed, match=r"has no summary\.json"):
            draw_after_run(tmp_path)
    finally:
        logger.remove(sink)
        logger.disable("aimcore")
    assert lines[-1] == f"the report could not be drawn, because {tmp_path / 'summary.json'} is missing\n"


def test_a_report_that_is_refused_leaves_the_run_as_it_was(make_study: Any, disk: Disk, tmp_path: Path) -> None:
    run_study(make_study("one"), tmp_path, scale="smoke")
    before = (tmp_path / "summary.json").read_text()
    disk.full = lambda _: True
    with pytest.warns(RunFailed, match="report failed: CannotWrite: cannot write .*No space left on device"):
        draw_after_run(tmp_path)
    assert (tmp_path / "summary.json").read_text() == before
    assert not list((tmp_path / "report").iterdir())
