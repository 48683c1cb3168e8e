"""Runs at native resolution: every objective, both ways to pad, resumed, and on two processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from core.engine.native_runs import PADDINGS, Padding, lines, native, objectives
from processes import run_ranks

from aimcore import Engine
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    for done in run_ranks(2, "core.engine.native_runs", folder):
        assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", objectives())
def test_every_objective_trains_on_two_processes_as_on_one_and_resumes_to_the_last_bit(
    name: str, padding: Padding, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    experiment = native(objectives()[name], padding, checkpoint_every=2)
    through = lines(experiment, tmp_path)
    for found, expected in zip(ranks[0]["runs"][f"{name} {padding}"], through, strict=True):
        assert found.pop("losses") == pytest.approx(expected["losses"], rel=1e-6)
        assert found == pytest.approx({key: value for key, value in expected.items() if key != "losses"}, rel=1e-5)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000004")
    assert lines(experiment, tmp_path, resume=True) == through


def test_two_ranks_read_equally_many_images_of_one_area(ranks: list[dict[str, Any]]) -> None:
    for (shape, numbers), (other_shape, other_numbers) in zip(ranks[0]["read"], ranks[1]["read"], strict=True):
        assert shape == other_shape
        assert numbers[-1] + 1 == other_numbers[0]
    assert len({shape[1] for shape, _ in ranks[0]["read"]}) > 6


def test_a_run_tells_its_budget_and_its_padding(tmp_path: Path) -> None:
    for line in lines(native(NextPatch(head=LinearHead()), "image"), tmp_path):
        assert line["area"] * line["num_images"] == line["num_patches"] <= 128
        assert 0 < line["padding_share"] < 0.5


def test_micro_batches_of_a_step_add_up_to_what_one_batch_gives(tmp_path: Path) -> None:
    whole, cut = (
        native(
            NextPatch(head=LinearHead()), "masked", engine=Engine(precision="fp32", num_threads=1, accumulation_steps=n)
        )
        for n in (1, 4)
    )
    for one, other in zip(lines(whole, tmp_path / "1"), lines(cut, tmp_path / "4"), strict=True):
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-5)
        assert (one["area"], one["num_images"]) == (other["area"], other["num_images"])
