"""What the report tells of runs at native resolution."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_material import NATIVE_LINES, make_native, make_study, write_metrics

from aimcore.report.native_section import NativeSteps, draw_areas, native_steps
from aimcore.report.page import draw_report
from aimcore.report.run_records import Absence, RunFiles, files_of
from aimcore.report.style import Series
from aimcore.running.summary import read_summary


def native_study(out: Path) -> Path:
    """A study of two runs, of which the second is trained at native resolution."""
    make_native(make_study(out, ["usual", "native"]) / "1")
    return out


def runs(out: Path) -> list[RunFiles]:
    return [files_of(entry, out) for entry in read_summary(out / "summary.json").experiments]


def test_sizes_of_steps_are_those_that_were_logged(tmp_path: Path) -> None:
    usual, native = runs(native_study(tmp_path / "out"))
    assert native_steps(usual) is None
    steps = native_steps(native)
    assert isinstance(steps, NativeSteps)
    assert (steps.areas_S.tolist(), steps.patches_S.tolist(), steps.budget) == ([8, 30], [64, 60], 64)


def test_lines_without_sizes_are_left_out(tmp_path: Path) -> None:
    out = native_study(tmp_path / "out")
    write_metrics(
        out / "1", [NATIVE_LINES[0], {"step": 1, "area": "8", "num_patches": 64, "padding_share": 0.1}, {"step": 2}]
    )
    steps = native_steps(runs(out)[1])
    assert isinstance(steps, NativeSteps)
    assert steps.padding_S.tolist() == [0.1]


def test_without_its_recipe_a_run_keeps_its_sizes_and_loses_its_budget(tmp_path: Path) -> None:
    out = native_study(tmp_path / "out")
    (out / "1" / "recipe.json").unlink()
    steps = native_steps(runs(out)[1])
    assert isinstance(steps, NativeSteps)
    assert steps.budget is None


@pytest.mark.parametrize(
    ("lines", "message"), [(None, "1/metrics.jsonl does not exist"), ([], "1/metrics.jsonl has no areas")]
)
def test_without_its_metrics_the_reason_is_reported(lines: list[Any] | None, message: str, tmp_path: Path) -> None:
    out = native_study(tmp_path / "out")
    if lines is None:
        (out / "1" / "metrics.jsonl").unlink()
    else:
        write_metrics(out / "1", lines)
    assert native_steps(runs(out)[1]) == Absence(message)


def test_the_page_has_the_budget_the_padding_and_a_histogram(tmp_path: Path) -> None:
    out = native_study(tmp_path / "out")
    source = draw_report(out).read_text()
    section = source[source.index('<h2 id="native">') : source.index('<h2 id="orders">')]
    assert re.findall(r'<td class="number">(.*?)</td>', section) == ["2", "64", "64", "62", "20.0", "8–30"]
    assert "Areas of the images of native in 2 logged steps: from 8 to 30 patches, half of the" in section
    assert (out / "report" / "areas-native.png").exists()


def test_missing_metrics_take_the_histogram_and_are_reported(tmp_path: Path) -> None:
    out = native_study(tmp_path / "out")
    draw_report(out)
    (out / "1" / "metrics.jsonl").unlink()
    assert "No sizes of steps of <b>native</b>: 1/metrics.jsonl does not exist." in draw_report(out).read_text()
    assert not (out / "report" / "areas-native.png").exists()


def test_studies_of_one_resolution_have_no_such_section(tmp_path: Path) -> None:
    assert "Native resolution" not in draw_report(make_study(tmp_path / "out", ["raster"])).read_text()


def test_steps_of_one_area_are_drawn_too(tmp_path: Path) -> None:
    steps = NativeSteps(np.full(3, 16.0), np.full(3, 64.0), np.zeros(3), 64)
    assert "from 16 to 16 patches" in draw_areas(steps, Series("native", 0), "areas-native", tmp_path).alt
