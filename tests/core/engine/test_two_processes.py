"""Two processes do what one does. One launch, as by torchrun, serves all tests of this file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from core.engine.toys import experiment, whole_batch
from core.engine.two_processes import (
    LAYOUTS,
    aim_losses,
    installed_objectives,
    objective_losses,
    pull_on_a_temperature_at_its_bound,
    toy_losses,
)
from processes import launched_env, run_to_end

from aimcore.engine import TrainingEngine, checkpoints

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one process after two steps, at stages 0, 2 and 3."""
    folder = tmp_path_factory.mktemp("alone")
    for stage in (0, 2, 3):
        with TrainingEngine(experiment(stage)) as engine:
            for step in range(2):
                engine.step([whole_batch(step)])
            checkpoints.save(engine, folder / f"stage-{stage}", seconds=0.0)
    return folder


@pytest.fixture(scope="module")
def ranks(alone: Path) -> list[dict[str, Any]]:
    """What each of two processes found."""
    done = run_to_end([sys.executable, "-m", "core.engine.two_processes", alone], env=launched_env(), fork=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((alone / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one_process() -> list[tuple[float, float]]:
    return aim_losses(0, 1)


@pytest.mark.parametrize("name", ["aim", "aim accumulated"])
def test_two_processes_train_as_one_does(
    name: str, ranks: list[dict[str, Any]], one_process: list[tuple[float, float]]
) -> None:
    for number, kind in enumerate(("loss", "gradient norm")):
        expected = [step[number] for step in one_process]
        assert [step[number] for step in ranks[0][name]] == pytest.approx(expected, rel=1e-6), kind


@pytest.mark.parametrize("name", installed_objectives())
def test_every_installed_objective_trains_on_two_processes_as_on_one(name: str, ranks: list[dict[str, Any]]) -> None:
    expected = objective_losses(installed_objectives()[name], 0, 1)
    assert len(expected) == 20
    for (losses, norm), (expected_losses, expected_norm) in zip(ranks[0]["objectives"][name], expected, strict=True):
        assert losses == pytest.approx(expected_losses, rel=1e-6)
        assert norm == pytest.approx(expected_norm, rel=1e-5)


def test_ranks_judge_together_whether_a_temperature_at_its_bound_is_led_back(ranks: list[dict[str, Any]]) -> None:
    # 3 - 1 wants it smaller, 1 - 2 larger, and so does -3 - 1: every rank lets its own part pass, or none does.
    assert ranks[0]["pulls"] == [pytest.approx([300, -100]), [0, 0], [0, 0]]
    assert pull_on_a_temperature_at_its_bound(2, gather=False) == pytest.approx(200)


def test_accumulated_micro_batches_train_as_one_does(one_process: list[tuple[float, float]]) -> None:
    assert [loss for loss, _ in aim_losses(0, 1, accumulation_steps=2)] == pytest.approx(
        [loss for loss, _ in one_process], rel=1e-6
    )


def test_both_processes_report_the_same(ranks: list[dict[str, Any]]) -> None:
    alike = ranks[0].keys() - {"shared errors", "not begun"}  # elsewhere, a foreign error arrives as another type
    assert {name: ranks[0][name] for name in alike} == {name: ranks[1][name] for name in alike}
    assert len(ranks[0]["aim"]) == 20


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", ["toy", "toy accumulated"])
def test_uneven_losses_add_up_at_every_stage(name: str, stage: int, ranks: list[dict[str, Any]]) -> None:
    for found, expected in zip(ranks[0][name][stage], toy_losses(0, 0, 1), strict=True):
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layouts", LAYOUTS, ids=str)
def test_two_processes_continue_what_one_began(layouts: tuple[int, int], ranks: list[dict[str, Any]]) -> None:
    for found, expected in zip(ranks[0]["resumed"][LAYOUTS.index(layouts)], toy_losses(0, 0, 1)[2:4], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("saved", "stage", "again"), [(0, 0, 1), (0, 3, 3), (2, 2, 2), (2, 3, 0), (3, 1, 2)])
def test_one_process_continues_what_two_began(
    saved: int, stage: int, again: int, ranks: list[dict[str, Any]], alone: Path
) -> None:
    assert ranks
    with TrainingEngine(experiment(again)) as engine:
        checkpoints.resume(engine, alone / f"resumed-{saved}-{stage}")
        found = [dict(engine.step([whole_batch(step)]).losses) for step in (4, 5)]
    for one, expected in zip(found, toy_losses(0, 0, 1)[4:6], strict=True):
        assert one == pytest.approx(expected, rel=1e-6)


def test_an_interruption_of_one_process_stops_all(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["interrupted"] == ["interrupted", 3, "finished", 6]


def test_a_tracker_stops_all_processes_at_one_step(ranks: list[dict[str, Any]]) -> None:
    assert [rank["stopped"] for rank in ranks] == [["interrupted", 2], ["interrupted", 2]]


def test_every_process_gets_the_whole_state_at_stage_3(ranks: list[dict[str, Any]]) -> None:
    assert [rank["gathered"] for rank in ranks] == [True, True]


def test_processes_share_the_cores(ranks: list[dict[str, Any]]) -> None:
    cores = len(os.sched_getaffinity(0))
    assert [rank["threads"] for rank in ranks] == [max(1, cores // 2)] * 2


def test_an_error_of_one_process_is_raised_by_all(ranks: list[dict[str, Any]]) -> None:
    damaged, strange, unpicklable, first, none, value = zip(*(rank["shared errors"] for rank in ranks), strict=True)
    assert damaged[0] == damaged[1]
    assert damaged[0].startswith("CheckpointDamaged: checkpoint file file is odd")
    other = "OtherProcessFailed: process {} failed, and the run cannot continue without it: "
    assert strange == (other.format(1) + "KeyError: 'strange'", "KeyError: 'strange'")
    assert unpicklable == ("UnpicklableError: a and b", other.format(0) + "UnpicklableError: a and b")
    assert first == ("OSError: [Errno 5] Input/output error", other.format(0) + "OSError: [Errno 5] Input/output error")
    assert none == ("no error", "no error")
    assert value == ("from rank 0", "from rank 0")


def test_a_run_that_cannot_begin_on_one_process_begins_on_none(ranks: list[dict[str, Any]]) -> None:
    weights, images, tracker = zip(*(rank["not begun"] for rank in ranks), strict=True)
    assert weights[0] == weights[1]
    assert weights[0].startswith("WeightsNotFound: initial weights: cannot read /of-rank-1.safetensors: ")
    assert images == ("DataNotFound: process 1 has no such folder",) * 2
    refused = "ConnectionRefusedError: [Errno 111] Connection refused"
    assert tracker == (
        refused,
        f"OtherProcessFailed: process 0 failed, and the run cannot continue without it: {refused}",
    )


@pytest.mark.parametrize("place", [0, 1])
def test_a_checkpoint_that_one_process_cannot_load_or_save_is_refused_by_all(
    place: int, ranks: list[dict[str, Any]]
) -> None:
    assert ranks[0]["refused"] == ranks[1]["refused"]
    unfit, missing, unsaved = ranks[0]["refused"][place]
    assert unfit.startswith("CheckpointDamaged: ")
    assert "step_00000002 cannot be loaded" in unfit
    assert "optim_states.pt is missing" in missing
    assert unfit.endswith("to continue from " + f"/refused-{(1, 3)[place]}/checkpoints/step_00000001")
    assert unsaved.startswith("CannotWrite: ")
    assert "No space left on device" in unsaved


@pytest.mark.parametrize("place", [0, 1])
def test_a_branch_of_two_processes_equals_the_same_run_from_its_beginning(
    place: int, ranks: list[dict[str, Any]]
) -> None:
    branch, whole, _ = ranks[0]["branched"][place]
    assert branch == whole
    assert len(branch) == 2


def test_both_processes_report_a_missing_checkpoint_of_a_branch(ranks: list[dict[str, Any]]) -> None:
    refusals = [rank["branched"][0][2] for rank in ranks]
    assert all("holds no checkpoint of step 2 to branch from (of these steps: none)" in text for text in refusals)
