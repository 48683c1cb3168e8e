"""The jsonl tracker."""

import json
from pathlib import Path

import fsspec
import pytest

from aimcore import InvalidValue
from aimcore_trackers import JSONLines
from aimcore_trackers.json_lines import JSONLinesRun


def steps(text: str) -> list[int]:
    return [json.loads(line)["step"] for line in text.splitlines()]


def test_a_local_file_grows_line_by_line(tmp_path: Path) -> None:
    run = JSONLines(url=f"{tmp_path}/new/{{run}}.jsonl").open("runs/study/raster", {}, 0)
    run.log(0, {"loss/next_patch": 0.5})
    assert json.loads((tmp_path / "new" / "raster.jsonl").read_text()) == {"step": 0, "loss/next_patch": 0.5}
    run.close("finished")


def test_resuming_drops_what_lies_beyond_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"st')
    run = JSONLines(url=str(path)).open("raster", {}, 2)
    run.log(2, {})
    run.close("finished")
    assert steps(path.read_text()) == [0, 1, 2]


def test_a_new_run_begins_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n')
    JSONLines(url=str(path)).open("raster", {}, 0).close("finished")
    assert path.read_text() == ""


def test_an_object_store_is_written_once_a_minute_and_at_the_end() -> None:
    now = iter([0.0, 0.0, 30.0, 61.0, 61.0, 62.0, 62.0])
    run = JSONLinesRun("memory://tracker/metrics.jsonl", 0, clock=lambda: next(now))
    files, path = fsspec.core.url_to_fs("memory://tracker/metrics.jsonl")
    sizes = []
    for step in range(3):
        run.log(step, {})
        sizes.append(len(steps(files.cat_file(path).decode())))
    run.close("finished")
    assert sizes == [0, 2, 2]
    assert steps(files.cat_file(path).decode()) == [0, 1, 2]


def test_a_tracker_without_a_place_is_refused() -> None:
    with pytest.raises(InvalidValue, match="url: must name a file"):
        JSONLines(url="")
