"""metrics.jsonl."""

import json
from pathlib import Path

import pytest

from aimcore.engine.metrics import METRICS_FILE, MetricsFile, flat, mean_losses, read_metrics


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
