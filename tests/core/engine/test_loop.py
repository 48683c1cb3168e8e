"""Training from data to files: it can stop anywhere and go on as if it never had."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from core.engine.toys import SignallingTracker, StoppingTracker, ToyObjective, ToyTrunk, experiment, whole_batch
from loguru import logger
from processes import run_to_end

from aimcore import Experiment
from aimcore.contracts.errors import RunFolderError
from aimcore.engine import TrainingDiverged, TrainingEngine, TrainingResult, read_metrics, train
from aimcore_trackers import JSONLines

TESTS = Path(__file__).parents[2]


def run(made: Experiment, folder: Path, *, resume: bool = False) -> TrainingResult:
    result = train(made, folder, resume=resume, progress=False)
    result.engine.close()
    return result


def losses(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(line["step"], line["losses"]) for line in read_metrics(folder)]


DROPPING = ToyTrunk(dropout=0.3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """Six steps at once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(experiment(trunk=DROPPING), folder)


def test_a_finished_run_says_what_it_did(undisturbed: tuple[Path, TrainingResult]) -> None:
    folder, result = undisturbed
    assert (result.status, result.num_steps) == ("finished", 6)
    lines = read_metrics(folder)
    assert result.missing_metrics == ""
    assert result.losses["all"] == pytest.approx(sum(line["losses"]["all"] for line in lines) / 6)
    assert result.patches_per_second is not None
    assert result.patches_per_second > 0


def test_every_step_has_its_line(undisturbed: tuple[Path, TrainingResult]) -> None:
    lines = read_metrics(undisturbed[0])
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    timed = {"patches_per_second", "data_seconds", "seconds", "peak_memory"}
    assert set(lines[0]) == {"step", "losses", "lr", "gradient_norm", *timed}
    assert lines[0]["peak_memory"] > 50e6  # Python and torch
    assert lines[0]["lr"] == 1e-3
    assert 0 <= lines[0]["data_seconds"] <= lines[0]["seconds"]


def test_the_last_checkpoint_has_the_weights(undisturbed: tuple[Path, TrainingResult]) -> None:
    folder = undisturbed[0] / "checkpoints" / "step_00000006"
    assert (folder / "model.safetensors").is_file()
    assert (folder / "manifest.json").is_file()


def test_the_trained_module_can_be_evaluated_afterwards(tmp_path: Path) -> None:
    result = train(experiment(3, num_steps=2), tmp_path, progress=False)
    with result.engine, torch.no_grad():
        module = result.module.eval()
        first, second = (float(module(whole_batch(0))["all"].sum) for _ in range(2))
    assert first == second > 0


def test_resuming_a_finished_run_trains_nothing(undisturbed: tuple[Path, TrainingResult]) -> None:
    folder, before = undisturbed
    again = run(experiment(trunk=DROPPING), folder, resume=True)
    assert (again.num_steps, again.patches_per_second) == (6, None)
    assert again.losses == before.losses


def test_a_folder_with_checkpoints_is_only_resumed(undisturbed: tuple[Path, TrainingResult]) -> None:
    folder, _ = undisturbed
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    with pytest.raises(RunFolderError, match=r"with a checkpoint of step 6: resume it .*, or choose"):
        run(experiment(trunk=DROPPING), folder)
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_the_run_goes_on_bit_for_bit(
    number: int, tmp_path: Path, undisturbed: tuple[Path, TrainingResult]
) -> None:
    result = run(experiment(trunk=DROPPING, trackers=(SignallingTracker(step=1, signal_number=int(number)),)), tmp_path)
    # The signal of step 1 comes after its update; the next step notices.
    assert (result.status, result.num_steps) == ("interrupted", 3)
    assert (tmp_path / "checkpoints" / "step_00000003" / "manifest.json").is_file()
    finished = run(experiment(trunk=DROPPING), tmp_path, resume=True)
    assert finished.status == "finished"
    assert losses(tmp_path) == losses(undisturbed[0])


@pytest.mark.usefixtures("ordinary_signals")
def test_ctrl_c_in_the_last_step_ends_the_study_and_loses_nothing(
    tmp_path: Path, undisturbed: tuple[Path, TrainingResult]
) -> None:
    result = run(experiment(trunk=DROPPING, trackers=(SignallingTracker(step=5),)), tmp_path)
    assert (result.status, result.num_steps) == ("interrupted", 6)
    assert (tmp_path / "checkpoints" / "step_00000006" / "model.safetensors").is_file()
    finished = run(experiment(trunk=DROPPING), tmp_path, resume=True)
    assert (finished.status, finished.num_steps) == ("finished", 6)
    assert losses(tmp_path) == losses(undisturbed[0])


def test_a_tracker_stops_the_run_after_the_step_that_it_saw(
    tmp_path: Path, undisturbed: tuple[Path, TrainingResult]
) -> None:
    stopped = run(experiment(trunk=DROPPING, trackers=(StoppingTracker(step=2),), log_every=4), tmp_path)
    assert (stopped.status, stopped.num_steps) == ("interrupted", 3)
    assert (tmp_path / "checkpoints" / "step_00000003" / "manifest.json").is_file()
    every = losses(undisturbed[0])
    assert (tmp_path / "seen.txt").read_text().splitlines() == [
        "log 0", *(f"see {step} {every[step][1]['all']!r}" for step in range(3)), "interrupted",
    ]  # fmt: skip
    resumed = run(experiment(trunk=DROPPING, trackers=(StoppingTracker(step=5),)), tmp_path, resume=True)
    assert (resumed.status, resumed.num_steps) == ("finished", 6)  # after the last step nothing is left to stop
    assert losses(tmp_path)[1:] == every[3:]
    assert (tmp_path / "seen.txt").read_text().splitlines()[-2:] == [f"see 5 {every[5][1]['all']!r}", "finished"]


@pytest.mark.usefixtures("ordinary_signals")
def test_metrics_that_a_power_cut_took_are_missed_and_recorded(
    tmp_path: Path, undisturbed: tuple[Path, TrainingResult], capfd: pytest.CaptureFixture[str]
) -> None:
    run(experiment(trunk=DROPPING, trackers=(SignallingTracker(step=3),)), tmp_path)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join([whole[0], whole[1], "\0" * 20 + "\n", whole[4]]))
    logger.enable("aimcore")
    sink = logger.add(sys.stderr, format="{level} {message}")
    try:
        result = run(experiment(trunk=DROPPING), tmp_path, resume=True)
    finally:
        logger.remove(sink)
        logger.disable("aimcore")
    warned = capfd.readouterr().err
    assert "WARNING toy: " in warned
    assert "has lost the lines of steps 2 to 3, before the checkpoint of step 5" in warned
    assert result.missing_metrics == "2 to 3"
    assert losses(tmp_path) == [line for line in losses(undisturbed[0]) if line[0] not in (2, 3)]


def test_metrics_are_on_the_disk_before_a_checkpoint_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    watched = {tmp_path / "run" / "metrics.jsonl", tmp_path / "mirror.jsonl"}
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        found = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if found in watched and found.read_bytes().count(b"\n") == 6:
            synced.append((found.name, (tmp_path / "run" / "checkpoints" / "step_00000006").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    run(experiment(trackers=(JSONLines(url=str(tmp_path / "mirror.jsonl")),)), tmp_path / "run")
    assert synced == [("metrics.jsonl", False), ("mirror.jsonl", False)]


KILLED = """
from pathlib import Path
import sys
from core.engine.test_loop import to_be_killed
from aimcore.engine import train
train(to_be_killed(), Path(sys.argv[1]), progress=False)
"""


def to_be_killed(step: int | None = 4) -> Experiment:
    """Saves after 3 steps and, by default, kills itself after 5."""
    trackers = () if step is None else (SignallingTracker(step=step, signal_number=int(signal.SIGKILL)),)
    return experiment(2, trunk=DROPPING, checkpoint_every=3, trackers=trackers)


def test_a_run_killed_between_two_saves_goes_on_bit_for_bit(tmp_path: Path) -> None:
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = run_to_end([sys.executable, "-c", KILLED, tmp_path / "killed"], env=os.environ | paths, fork=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [step for step, _ in losses(tmp_path / "killed")] == [0, 1, 2, 3, 4]
    run(to_be_killed(step=None), tmp_path / "killed", resume=True)
    run(to_be_killed(step=None), tmp_path / "undisturbed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "undisturbed")


def test_divergence_names_the_last_checkpoint_and_leaves_it_alone(tmp_path: Path) -> None:
    poisoned = experiment(objective=ToyObjective(poison=4 * 8 + 1), checkpoint_every=2)
    with pytest.raises(TrainingDiverged, match=r"at step 4: loss all = nan.*checkpoint is .*step_00000004"):
        run(poisoned, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == ["step_00000002", "step_00000004"]


def test_fewer_lines_are_logged_on_demand_but_always_the_last(tmp_path: Path) -> None:
    run(experiment(log_every=4), tmp_path)
    assert [step for step, _ in losses(tmp_path)] == [0, 4, 5]


def test_trackers_get_what_metrics_jsonl_gets(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror.jsonl"
    run(experiment(trackers=(JSONLines(url=str(mirror)),), num_steps=2), tmp_path / "run")
    assert [line.count('"loss/all"') for line in mirror.read_text().splitlines()] == [1, 1]


def test_experiments_can_follow_each_other_in_one_process(tmp_path: Path) -> None:
    found = [run(experiment(stage, num_steps=2), tmp_path / str(n)).losses for n, stage in enumerate((0, 3, 1, 0))]
    assert found[0] == found[3]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_a_failure_before_the_first_step_frees_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = [], TrainingEngine.close
    monkeypatch.setattr(TrainingEngine, "close", lambda engine: closed.append(engine) or close(engine))
    monkeypatch.setattr("aimcore.engine.run_steps.train_steps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(experiment(), tmp_path, progress=False)
    assert len(closed) == 1
