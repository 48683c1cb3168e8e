"""Validation while training: its losses are those of a shorter run, and training does not notice it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from trained_runs import captioning_experiment

from aimcore import Engine, Experiment, InvalidValue, Schedule
from aimcore.engine.metrics_file import flat
from aimcore.io.metrics_lines import metrics_in, read_metrics
from aimcore.running.experiment_run import run_experiment
from aimcore.running.summary import ExperimentSummary
from aimcore_decoders import CrossAttentionDecoder
from aimcore_objectives import CapPa

STEADY = Schedule(warmup_steps=0, decay="constant")


def made(**changes: Any) -> Experiment:
    """A constant rate, so that a run of fewer steps is the beginning of a longer one; CapPa draws its masks."""
    objective = CapPa(decoder=CrossAttentionDecoder(width=16, depth=1, num_heads=2), context_length=8)
    fields = {"num_steps": 6, "schedule": STEADY, "log_every": 4, "engine": Engine(num_threads=1)}
    return captioning_experiment(objective, **{**fields, **changes})


def run(folder: Path, **changes: Any) -> ExperimentSummary:
    return run_experiment(made(**changes), folder)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentSummary]:
    folder = tmp_path_factory.mktemp("validated")
    return folder, run(folder, validate_every=2)


def test_every_validation_gives_the_losses_of_a_run_that_ends_there(
    validated: tuple[Path, ExperimentSummary], tmp_path: Path
) -> None:
    lines = read_metrics(validated[0] / "tiny")
    found = {line["step"]: line["validation_losses"] for line in lines if "validation_losses" in line}
    assert list(found) == [1, 3]  # after 2 and 4 updates; the run validates after the last one anyway
    for num_steps in (2, 4):
        shorter = run(tmp_path / str(num_steps), num_steps=num_steps)
        assert shorter.losses is not None
        assert found[num_steps - 1] == {"text": shorter.losses["text"].validation}


def test_training_and_its_result_do_not_depend_on_it(validated: tuple[Path, ExperimentSummary], tmp_path: Path) -> None:
    plain = run(tmp_path)
    untimed = dict.fromkeys(("seconds", "patches_per_second", "peak_memory", "data_share"))
    assert attrs.evolve(validated[1], **untimed) == attrs.evolve(
        plain,
        **untimed,
        # The mean over the logged lines: two more steps are logged here.
        losses=validated[1].losses,
    )
    assert plain.losses is not None
    assert validated[1].losses is not None
    assert plain.losses["text"].validation == validated[1].losses["text"].validation
    assert [line["step"] for line in read_metrics(validated[0] / "tiny")] == [0, 1, 3, 4, 5]
    assert [line["step"] for line in read_metrics(tmp_path / "tiny")] == [0, 4, 5]


def test_trackers_receive_the_losses_as_numbers(validated: tuple[Path, ExperimentSummary]) -> None:
    line = read_metrics(validated[0] / "tiny")[1]
    assert flat(line)["validation/text"] == line["validation_losses"]["text"]
    assert "validation_losses" not in flat(line)


@pytest.mark.parametrize("losses", [[1.0], {"text": "low"}, {"text": float("inf")}])
def test_a_line_with_damaged_validation_losses_is_left_out(losses: Any) -> None:
    line = json.dumps({"step": 0, "losses": {"text": 1.0}, "validation_losses": losses})
    assert metrics_in(f"{line}\n".encode()).lines == []


def test_it_needs_a_positive_number_of_steps() -> None:
    with pytest.raises(InvalidValue, match="validate_every"):
        made(validate_every=0)
