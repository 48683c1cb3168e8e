"""Writes that the system refuses in training: what was saved before stays, is named, and is gone on from."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import experiment
from loguru import logger
from safetensors import SafetensorError

from aimcore import Experiment, Tracker, TrackerRun, component
from aimcore.engine import checkpoints, read_metrics, train
from aimcore.engine.metrics_file import MetricsFile
from aimcore.io.atomic_files import CannotWrite
from aimcore.io.run_folder import METRICS_FILE

ZIP = "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"
"""What torch's writer of zip files raises on a full disk, as a RuntimeError."""
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")


def run(made: Experiment, folder: Path, *, resume: bool = False) -> list[Mapping[str, float]]:
    """The losses of all steps."""
    train(made, folder, resume=resume, progress=False).engine.close()
    return [line["losses"] for line in read_metrics(folder)]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lines.append, level="ERROR", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


@pytest.mark.parametrize("stage", [0, 2])
def test_a_checkpoint_that_is_refused_leaves_the_one_before_to_go_on_from(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, left_open = torch.save, []

    def full(content: Any, path: Any, *options: Any, **named: Any) -> None:
        if "step_00000004" not in str(path):
            save(content, path, *options, **named)
            return
        left_open.append(os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY), "wb", buffering=0))
        left_open[-1].write(bytes(1000))
        raise RuntimeError(ZIP)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(CannotWrite) as raised:
            run(experiment(stage, checkpoint_every=2), tmp_path / "full")
    message = str(raised.value)
    assert message.startswith(f"cannot write {tmp_path}/full/checkpoints/step_00000004.partial/")
    assert f": {ZIP} (" in message
    last = tmp_path / "full" / "checkpoints" / "step_00000002"
    assert message.endswith(f"free). The last complete checkpoint is {last}; --resume continues from it")
    assert list(last.parent.glob("step_*")) == [last]
    # A file that is still open keeps its space until it is empty.
    assert [os.fstat(file.fileno()).st_size for file in left_open] == [0] * len(left_open) != []
    assert run(experiment(stage), tmp_path / "full", resume=True) == run(experiment(stage), tmp_path / "undisturbed")


@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeeds_scripts_that_are_refused_are_refused_checkpoints(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, path: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, path)

    monkeypatch.setattr("deepspeed.runtime.engine.copyfile", full)
    with pytest.raises(CannotWrite, match=rf"^cannot write {tmp_path}/checkpoints: No space left .*No checkpoint was"):
        run(experiment(stage, num_steps=1), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("step_*"))


def test_weights_that_are_refused_are_named_and_nothing_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CannotWrite, match=r"partial/model.safetensors: Error while .* \(os error 28\) .*No checkpoint"):
        run(experiment(num_steps=1), tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@FULL
def test_a_line_of_metrics_that_is_refused_is_an_error_also_when_the_file_is_closed(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, 0)
    file._file.close()
    file._file = open("/dev/full", "ab")  # noqa: SIM115
    for act in (lambda: file.write({"step": 0}), file.close):
        with pytest.raises(CannotWrite, match=rf"cannot write {tmp_path}/metrics.jsonl: No space left on device"):
            act()


def test_a_line_that_nobody_would_find_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with MetricsFile(tmp_path / "run", 0) as file:
        file.write({"step": 0})
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(CannotWrite, match=r"run/metrics.jsonl: No such file .* was removed in the meantime"):
            file.write({"step": 1})
    assert (tmp_path / "moved" / METRICS_FILE).is_file()


@component("full")
class Full(Tracker):
    """Fails when the run is closed, and earlier on request."""

    fails_at: int | None = None

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> TrackerRun:
        return FullRun(self.fails_at)


class FullRun(TrackerRun):
    def __init__(self, fails_at: int | None) -> None:
        self.fails_at = fails_at

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise CannotWrite("tracker", "cannot write tracker")

    def close(self, status: str) -> None:
        raise OSError(28, f"closed after {status}")


def test_the_first_error_is_raised_and_that_of_closing_logged(tmp_path: Path, logged: list[str]) -> None:
    made = experiment(checkpoint_every=2, trackers=(Full(fails_at=3),))
    with pytest.raises(CannotWrite, match=r"^cannot write tracker\. The last complete checkpoint is .*step_00000002;"):
        run(made, tmp_path)
    assert logged == ["toy: closing what is recorded failed too: [Errno 28] closed after failed\n"]


def test_an_error_of_closing_alone_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="closed after finished"):
        run(experiment(trackers=(Full(),)), tmp_path)
