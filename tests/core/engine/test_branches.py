"""A branch gives what it would have given had it been trained from its beginning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.toys import SignallingTracker, ToyTrunk, experiment
from safetensors.torch import load_file

from aimcore import Branch, Experiment, InvalidValue, Schedule, Weights
from aimcore.engine import CheckpointDamaged, CheckpointMismatch, NothingToBeginWith, read_metrics, train
from aimcore_optimizers import AdamW

DROPPING = ToyTrunk(dropout=0.3)
OPTIMIZER = AdamW(peak_lr=0.05, weight_decay=0.1, decay="decoupled")
LONG = Schedule(warmup_steps=2, warmup_lr=0.01, decay="half_cosine")
COOLDOWN = Schedule(warmup_steps=2, warmup_lr=0.01, decay="half_cosine", decay_steps=9, cooldown_steps=3)


def long(stage: int = 0, **changes: Any) -> Experiment:
    """Nine steps with a checkpoint after every second."""
    return made(stage, **{"name": "long", "num_steps": 9, "schedule": LONG, "checkpoint_every": 2} | changes)


def cooled(stage: int = 0, **changes: Any) -> Experiment:
    """Four steps of the long run and three of a cooldown."""
    branch = Branch(experiment="long", step=4)
    return made(stage, **{"name": "cooled", "num_steps": 7, "schedule": COOLDOWN, "branch": branch} | changes)


def made(stage: int, **fields: Any) -> Experiment:
    return experiment(stage, trunk=DROPPING, optimizer=OPTIMIZER, **fields)


def run(given: Experiment, study: Path, *, resume: bool = False, keep: tuple[int, ...] = (4,)) -> str:
    result = train(given, study / given.name, resume=resume, progress=False, keep_steps=keep)
    result.engine.close()
    return result.status


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "checkpoints" / "step_00000007" / "model.safetensors")


def lines(run_folder: Path) -> list[tuple[Any, ...]]:
    return [(line["step"], line["losses"], line["lr"], line["gradient_norm"]) for line in read_metrics(run_folder)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose long run has ended."""
    study = tmp_path_factory.mktemp("study")
    run(long(), study)
    return study


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "study"))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_branch_equals_the_same_run_from_its_beginning_bit_for_bit(stage: int, tmp_path: Path) -> None:
    run(long(stage), tmp_path)
    run(cooled(stage), tmp_path)
    run(cooled(stage, name="whole", branch=None), tmp_path)
    assert lines(tmp_path / "cooled") == lines(tmp_path / "whole")[4:]
    found, expected = weights(tmp_path / "cooled"), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("ordinary_signals")
@pytest.mark.parametrize("stage", [0, 1])
def test_an_interrupted_branch_goes_on_bit_for_bit(stage: int, tmp_path: Path) -> None:
    run(long(stage), tmp_path)
    run(cooled(stage, name="undisturbed"), tmp_path)
    assert run(cooled(stage, trackers=(SignallingTracker(step=4),)), tmp_path) == "interrupted"
    assert run(cooled(stage), tmp_path, resume=True) == "finished"
    assert lines(tmp_path / "cooled") == lines(tmp_path / "undisturbed")
    found, expected = weights(tmp_path / "cooled"), weights(tmp_path / "undisturbed")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_branch_that_left_no_checkpoint_begins_again_where_it_branched(study: Path) -> None:
    run(cooled(), study)
    expected = lines(study / "cooled")
    shutil.rmtree(study / "cooled" / "checkpoints")
    run(cooled(), study, resume=True)
    assert lines(study / "cooled") == expected
    assert [step for step, *_ in expected] == [4, 5, 6]


def test_the_long_run_keeps_what_its_branches_need_besides_the_newest(study: Path) -> None:
    names = {path.name for path in (study / "long" / "checkpoints").glob("step_*")}
    assert names == {"step_00000004", "step_00000008", "step_00000009"}


def test_a_branch_may_leave_at_the_end(study: Path) -> None:
    late = cooled(num_steps=11, branch=Branch(experiment="long", step=9))
    run(late, study)
    assert [line["step"] for line in read_metrics(study / "cooled")] == [9, 10]


def test_a_checkpoint_that_does_not_exist_is_reported_with_those_that_are(study: Path) -> None:
    early = cooled(branch=Branch(experiment="long", step=2))
    with pytest.raises(
        NothingToBeginWith, match=r"long holds no checkpoint of step 2 .*of these steps: 4, 8, 9\); run"
    ):
        run(early, study)
    alone = cooled(branch=Branch(experiment="other", step=4))
    with pytest.raises(NothingToBeginWith, match=r"other holds no checkpoint of step 4 .*of these steps: none"):
        run(alone, study)


def test_a_checkpoint_outside_the_study_is_not_read(study: Path, tmp_path: Path) -> None:
    (study / "long").rename(tmp_path / "elsewhere")
    (study / "long").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NothingToBeginWith, match="leads out of the study's folder"):
        run(cooled(), study)


def test_a_damaged_checkpoint_is_not_branched_from(study: Path) -> None:
    path = study / "long" / "checkpoints" / "step_00000004" / "mp_rank_00_model_states.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = r"does not have the hash .*: it is damaged; restore it from a copy, or run long and this branch again"
    with pytest.raises(CheckpointDamaged, match=again):
        run(cooled(), study)


def test_a_checkpoint_of_another_model_or_seed_is_not_branched_from(study: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="seed was 0, now 1"):
        run(cooled(seed=1), study)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/tmp", "report"])
def test_a_name_that_is_no_experiments_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="experiment: "):
        Branch(experiment=name, step=1)
    with pytest.raises(InvalidValue, match="name: "):
        long(name=name)


def test_a_branch_begins_before_its_end_and_with_one_thing_only() -> None:
    with pytest.raises(InvalidValue) as caught:
        cooled(name="long", num_steps=4, schedule=Schedule(), initial_weights=Weights(url="model.safetensors"))
    assert [path for path, _ in caught.value.problems] == ["branch", "branch.step", "branch.experiment"]
