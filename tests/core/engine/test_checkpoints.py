"""Checkpoints: complete or absent, and read only when they are what this run saved."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import ToyTrunk, experiment, whole_batch
from loguru import logger
from safetensors.torch import load_file

from aimcore import Experiment, Schedule
from aimcore.engine import CheckpointDamaged, CheckpointMismatch, TrainingEngine, checkpoints
from aimcore.engine.manifest import read_manifest
from aimcore.io.run_folder import WEIGHTS_FILE
from aimcore_optimizers import AdamW

CASES = [(0, "fp32"), (0, "autocast"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]


def train(run: Experiment, folder: Path, num_steps: int, **options: Any) -> list[dict[str, float]]:
    """Go on from what is in the folder, and save at the end."""
    with TrainingEngine(run) as engine:
        checkpoints.resume(engine, folder)
        losses = [dict(engine.step([whole_batch(engine.step_number)]).losses) for _ in range(num_steps)]
        checkpoints.save(engine, folder, seconds=1.5, **options)
    return losses


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints after 2 and 4 steps."""
    folder = tmp_path_factory.mktemp("saved")
    train(experiment(), folder, 2)
    train(experiment(), folder, 2)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


@pytest.fixture
def warned() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def resume(folder: Path, run: Experiment | None = None) -> int:
    """The step that the run in ``folder`` goes on from."""
    with TrainingEngine(run or experiment()) as engine:
        checkpoints.resume(engine, folder)
        return engine.step_number


@pytest.mark.parametrize(("stage", "precision"), CASES)
def test_a_resumed_run_goes_on_bit_for_bit(stage: int, precision: str, tmp_path: Path) -> None:
    run = experiment(stage, precision, trunk=ToyTrunk(dropout=0.3))
    at_once = train(run, tmp_path / "once", 4)
    in_parts = train(run, tmp_path / "parts", 2) + train(run, tmp_path / "parts", 2)
    assert in_parts == at_once


@pytest.mark.parametrize(("saved", "stage"), [(0, 1), (0, 3), (1, 0), (1, 3), (2, 0), (3, 0), (3, 2)])
def test_a_run_goes_on_at_another_stage_bit_for_bit(saved: int, stage: int, tmp_path: Path) -> None:
    at_once = train(experiment(saved), tmp_path / "once", 4)
    in_parts = train(experiment(saved), tmp_path / "parts", 2) + train(experiment(stage), tmp_path / "parts", 2)
    assert in_parts == at_once


@pytest.mark.parametrize(("saved", "stage"), [(1, 3), (3, 2)])
def test_masters_are_kept_at_another_stage(saved: int, stage: int, tmp_path: Path) -> None:
    with TrainingEngine(experiment(saved, "bf16")) as engine:
        engine.step([whole_batch(0)])
        before = engine.full_state_dict()
        checkpoints.save(engine, tmp_path, seconds=0.0)
    with TrainingEngine(experiment(stage, "bf16")) as engine:
        checkpoints.resume(engine, tmp_path)
        after = engine.full_state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_decoupled_decay_goes_on_bit_for_bit_through_a_changing_schedule(stage: int, tmp_path: Path) -> None:
    optimizer = AdamW(peak_lr=0.05, weight_decay=0.5, decay="decoupled")
    schedule = Schedule(warmup_steps=1, warmup_lr=0.01, decay="linear", cooldown_steps=2)
    run = experiment(stage, optimizer=optimizer, schedule=schedule, num_steps=4)
    train(run, tmp_path / "once", 4, final=True)
    train(run, tmp_path / "parts", 2)
    train(run, tmp_path / "parts", 2, final=True)
    at_once, in_parts = (
        load_file(tmp_path / way / "checkpoints/step_00000004" / WEIGHTS_FILE) for way in ("once", "parts")
    )
    assert all(torch.equal(in_parts[name], value) for name, value in at_once.items())


def test_a_checkpoint_says_what_saved_it(saved: Path) -> None:
    manifest = read_manifest(saved / "checkpoints" / "step_00000004")
    assert (manifest.step, manifest.seconds) == (4, 1.5)
    assert manifest.saved_by["zero_stage"] == 0
    assert (saved / "checkpoints" / "latest").read_text() == "step_00000004"


@pytest.mark.parametrize(("stage", "precision"), CASES)
def test_the_last_checkpoint_holds_plain_weights(stage: int, precision: str, tmp_path: Path) -> None:
    with TrainingEngine(experiment(stage, precision)) as engine:
        engine.step([whole_batch(0)])
        weights = engine.full_state_dict()
        folder = checkpoints.save(engine, tmp_path, seconds=0.0, final=True)
    found = load_file(folder / WEIGHTS_FILE)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for _ in range(3):
        train(experiment(), tmp_path, 1, keep=2)
    names = {path.name for path in (tmp_path / "checkpoints").glob("step_*")}
    assert names == {"step_00000002", "step_00000003"}


def test_what_a_crash_left_is_skipped_with_a_warning(folder: Path, warned: list[str]) -> None:
    partial = folder / "checkpoints" / "step_00000006.partial"
    shutil.copytree(folder / "checkpoints" / "step_00000004", partial)
    assert resume(folder) == 4
    assert any("step_00000006.partial was never completed" in line for line in warned)


def test_leftovers_go_when_the_next_checkpoint_is_saved(folder: Path) -> None:
    (folder / "checkpoints" / "step_00000003.partial").mkdir()
    train(experiment(), folder, 1)
    assert not list((folder / "checkpoints").glob("*.partial"))


def test_a_folder_that_a_kill_left_without_manifest_is_skipped_and_goes_with_the_next_save(
    folder: Path, warned: list[str]
) -> None:
    (folder / "checkpoints" / "step_00000002" / "manifest.json").unlink()
    assert resume(folder) == 4
    assert any("step_00000002 was never completed" in line for line in warned)
    train(experiment(), folder, 1)
    assert {path.name for path in (folder / "checkpoints").glob("step_*")} == {"step_00000004", "step_00000005"}


def test_a_kill_while_old_checkpoints_are_removed_leaves_none_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(experiment(), tmp_path, 1)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt(str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt, match=r"step_00000001\.partial"):
            train(experiment(), tmp_path, 1, keep=1)
    train(experiment(), tmp_path, 1, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000003"]


def test_of_a_linked_checkpoint_only_the_link_is_removed(folder: Path) -> None:
    old, moved = folder / "checkpoints" / "step_00000002", folder / "moved"
    old.symlink_to(old.rename(moved))
    train(experiment(), folder, 1)
    assert not old.is_symlink()
    assert (moved / "manifest.json").is_file()


def test_an_old_checkpoint_that_cannot_be_removed_stops_nothing(
    folder: Path, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    train(experiment(), folder, 1)
    assert (folder / "checkpoints" / "step_00000005" / "manifest.json").is_file()
    assert any("cannot be removed" in line and "Permission denied" in line for line in warned)


def test_a_name_that_no_checkpoint_has_is_no_checkpoint(folder: Path) -> None:
    newest = folder / "checkpoints" / "step_00000004"
    for name in ("step_000000009", "step_٠٠٠٠٠٠٠٩", "step_00000009.old", "step_9"):
        shutil.copytree(newest, newest.with_name(name))
    assert resume(folder) == 4


def test_nothing_to_resume_from_is_a_new_run(tmp_path: Path) -> None:
    assert resume(tmp_path) == 0


def newest_file(folder: Path) -> Path:
    return folder / "checkpoints" / "step_00000004" / "mp_rank_00_model_states.pt"


def test_a_changed_file_is_named_with_what_is_left(folder: Path) -> None:
    content = bytearray(newest_file(folder).read_bytes())
    content[len(content) // 2] ^= 1
    newest_file(folder).write_bytes(content)
    with pytest.raises(CheckpointDamaged, match=r"mp_rank_00_model_states.pt does not have the hash.*step_00000002"):
        resume(folder)


def test_deleting_the_damaged_checkpoint_goes_on_from_the_one_before(folder: Path) -> None:
    shutil.rmtree(newest_file(folder).parent)
    assert resume(folder) == 2


def test_a_missing_and_a_shortened_file_are_named(folder: Path) -> None:
    os.truncate(newest_file(folder), 10)
    with pytest.raises(CheckpointDamaged, match=r"model_states.pt has 10 bytes instead of \d+"):
        resume(folder)
    newest_file(folder).unlink()
    with pytest.raises(CheckpointDamaged, match=r"model_states.pt is missing"):
        resume(folder)


def test_an_unreadable_manifest_is_named(folder: Path) -> None:
    (newest_file(folder).parent / "manifest.json").write_text("{")
    with pytest.raises(CheckpointDamaged, match=r"manifest.json cannot be read"):
        resume(folder)


class Stranger:
    """What an attacker would put in a pickle."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch broken-in",)


def test_a_pickle_that_names_anything_strange_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = experiment()
    with TrainingEngine(run) as engine:
        engine.step([whole_batch(0)])
        shards = engine.save_shards

        def save_with_a_stranger(folder: Path, tag: str) -> None:
            shards(folder, tag)
            torch.save({"stranger": Stranger()}, folder / tag / "mp_rank_00_model_states.pt", pickle_module=pickle)

        monkeypatch.setattr(engine, "save_shards", save_with_a_stranger)
        checkpoints.save(engine, tmp_path, seconds=0.0)
    with pytest.raises(CheckpointDamaged, match=r"would run posix.system when loaded"):
        resume(tmp_path)
    assert not (tmp_path / "broken-in").exists()


def test_a_checkpoint_of_an_older_python_can_be_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # How members were pickled before Python 3.11.4.
    stages = "deepspeed.runtime.zero.config.ZeroStageEnum"
    monkeypatch.setattr(f"{stages}.__reduce_ex__", lambda stage, _: (getattr, (type(stage), stage.name)))
    train(experiment(1), tmp_path, 2)
    assert len(train(experiment(1), tmp_path, 2)) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (experiment(0, "autocast"), "precision was fp32, now autocast"),
        (experiment(seed=7), "seed was 0, now 7"),
        (experiment(optimizer=AdamW(peak_lr=1e-2)), "optimizer.peak_lr was 0.001, now 0.01"),
        (experiment(trunk=ToyTrunk(width=8)), "parameters was"),
    ],
)
def test_another_run_cannot_go_on_from_it(folder: Path, changed: Experiment, message: str) -> None:
    with pytest.raises(CheckpointMismatch, match=f"cannot resume from .*{message}"):
        resume(folder, changed)
