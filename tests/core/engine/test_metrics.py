"""metrics.jsonl."""

import json
from pathlib import Path

import pytest
from core.engine.toys import experiment

from aimcore import Branch
from aimcore.contracts.errors import RunFolderError
from aimcore.engine.metrics_file import (
    MetricsFile,
    flat,
    in_ranges,
    mean_losses,
    missing_steps,
)
from aimcore.io.metrics_lines import read_metrics
from aimcore.io.run_folder import DAMAGED_METRICS_FILE, METRICS_FILE


def line(step: int, **losses: float) -> dict[str, object]:
    return {"step": step, "losses": losses, "lr": 0.1}


def test_every_line_can_be_read_before_the_file_is_closed(tmp_path: Path) -> None:
    with MetricsFile(tmp_path, 0) as file:
        file.write(line(0, a=1.0))
        assert read_metrics(tmp_path) == [line(0, a=1.0)]


def test_lines_at_or_beyond_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    with MetricsFile(tmp_path, 0) as file:
        for step in range(5):
            file.write(line(step))
    with MetricsFile(tmp_path, 3) as file:
        file.write(line(3, a=9.0))
    assert [(kept["step"], kept["losses"]) for kept in read_metrics(tmp_path)] == [
        (0, {}),
        (1, {}),
        (2, {}),
        (3, {"a": 9.0}),
    ]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(json.dumps(line(0)) + "\n" + '{"step": 1, "los')
    assert read_metrics(tmp_path) == [line(0)]


def test_a_line_that_lost_its_end_alone_is_whole(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(json.dumps(line(0)) + "\n" + json.dumps(line(1)))
    assert read_metrics(tmp_path) == [line(0), line(1)]


DAMAGED = {
    "bits": b'{"step": 1, "lo\xf3ses": {}}',
    "zeros": bytes(30),
    "cut": b'{"step": 1, "los',
    "two in one": b'{"step": 1, "los{"step": 2, "losses": {}}',
    "no object": b"[1, 2]",
    "no step": b'{"losses": {}}',
    "no losses": b'{"step": 1}',
    "step true": b'{"step": true, "losses": {}}',
    "step below zero": b'{"step": -1, "losses": {}}',
    "loss as text": b'{"step": 1, "losses": {"a": "1"}}',
    "loss NaN": b'{"step": 1, "losses": {"a": NaN}}',
    "rate infinite": b'{"step": 1, "losses": {}, "lr": 1e999}',
    "huge": b'{"step": 1, "losses": {"a": ' + b"9" * 4000 + b"}}",
    "deep": b'{"step": 1, "losses": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_left_out_and_set_aside_when_the_run_is_resumed(tmp_path: Path, damage: str) -> None:
    whole = [json.dumps(line(step, a=1.0)).encode() for step in (0, 2)]
    (tmp_path / METRICS_FILE).write_bytes(b"\n".join([whole[0], DAMAGED[damage], whole[1], b""]))
    assert read_metrics(tmp_path) == [line(0, a=1.0), line(2, a=1.0)]
    MetricsFile(tmp_path, 3).close()
    assert (tmp_path / METRICS_FILE).read_bytes().splitlines() == whole
    assert (tmp_path / DAMAGED_METRICS_FILE).read_bytes() == DAMAGED[damage] + b"\n"
    MetricsFile(tmp_path, 3).close()
    assert (tmp_path / DAMAGED_METRICS_FILE).read_bytes() == DAMAGED[damage] + b"\n"


def test_lines_are_in_the_order_of_steps_and_of_two_the_later_one_counts(tmp_path: Path) -> None:
    lines = [line(0), line(2, a=1.0), line(1), line(2, a=2.0)]
    (tmp_path / METRICS_FILE).write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert read_metrics(tmp_path) == [line(0), line(1), line(2, a=2.0)]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).mkdir()
    with pytest.raises(RunFolderError, match=r"metrics.jsonl cannot be read .*: repair it, or move it away"):
        read_metrics(tmp_path)


def test_missing_steps_are_those_that_should_have_been_logged() -> None:
    every, third = experiment(num_steps=12), experiment(num_steps=12, log_every=3)
    assert missing_steps([line(step) for step in (0, 1, 2, 3, 9)], every, 9) == [4, 5, 6, 7, 8]
    assert missing_steps([line(step) for step in (0, 9)], third, 10) == [3, 6]
    assert missing_steps([line(step) for step in (0, 3, 6, 9)], third, 12) == [11]
    assert missing_steps([line(step) for step in (0, 3, 6, 9, 11)], third, 12) == []
    assert missing_steps([], every, 0) == []


def test_missing_steps_of_a_branch_begin_where_it_does() -> None:
    branch = experiment(num_steps=8, log_every=2, branch=Branch(experiment="long", step=3))
    assert missing_steps([line(6)], branch, 8) == [4, 7]


@pytest.mark.parametrize(
    ("numbers", "every", "text"),
    [
        ([], 1, ""),
        ([7], 1, "7"),
        ([4, 5, 6, 7, 8, 10], 1, "4 to 8, 10"),
        ([10, 20, 30, 50], 10, "10 to 30, 50"),
        (range(0, 60, 2), 1, "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ..."),
    ],
)
def test_numbers_are_shown_in_ranges(numbers: list[int], every: int, text: str) -> None:
    assert in_ranges(numbers, every) == text


def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    with MetricsFile(tmp_path, 0) as file, pytest.raises(ValueError, match="not JSON compliant"):
        file.write(line(0, a=float("nan")))
    assert read_metrics(tmp_path) == []


def test_mean_losses_are_over_the_last_lines_that_have_them() -> None:
    lines = [line(0, a=100.0, b=4.0), line(1, a=1.0), line(2, a=2.0, b=6.0)]
    assert mean_losses(lines, 2) == {"a": 1.5, "b": 6.0}
    assert mean_losses(lines) == pytest.approx({"a": 103 / 3, "b": 5.0})


def test_trackers_get_numbers_only() -> None:
    assert flat(line(3, a=1.0)) == {"loss/a": 1.0, "lr": 0.1}
