"""``aimcore report``, and the report at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger
from report_material import make_study

from aimcore import Study, run
from aimcore.cli.report import draw_after_run
from aimcore.report import Summary, read_summary


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Commands add log sinks: take them away again."""
    yield
    logger.remove()
    logger.disable("aimcore")


def fail(_: Path) -> Path:
    raise RuntimeError("no such luck")


def test_the_command_draws(tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", ["raster"])
    assert run.command(["report", str(out)]) == 0
    assert (out / "report.html").is_file()


def test_a_folder_without_results_is_reported_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.command(["report", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message == f"error: {tmp_path} has no summary.json: give the folder of a study that has run\n"


@pytest.fixture
def study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A study whose run takes no time."""

    def run_study(study: Study, out: Path, **_: object) -> Summary:
        return read_summary(make_study(out, [experiment.name for experiment in study.experiments]) / "summary.json")

    monkeypatch.setattr("aimcore.running.study_run.run_study", run_study)
    path = tmp_path / "table.py"
    path.write_text(
        """
from aimcore import Data, Experiment, Study
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    source = BundledFashionMNIST()
    data = Data(train=source, validation=source, batch_size=4, image_size=28)
    trunk = ViT(width=16, depth=1, num_heads=2, patch_size=14)
    one = Experiment(name="one", data=data, trunk=trunk, objective=NextPatch(), num_steps=2)
    return Study(name="table", experiments=[one])
"""
    )
    return str(path)


def test_a_run_ends_with_its_report(study_file: str, tmp_path: Path) -> None:
    assert run.main([study_file, "--out", str(tmp_path / "out")]) == 0
    assert "Reading order of one" in (tmp_path / "out" / "report.html").read_text()


def test_a_run_whose_report_cannot_be_drawn_is_finished_all_the_same(
    study_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aimcore.report.page.draw_report", fail)
    assert run.main([study_file, "--out", str(tmp_path / "out")]) == 0
    assert f"To draw it again: aimcore report {tmp_path / 'out'}" in capsys.readouterr().err


def test_what_stopped_the_drawing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimcore.report.page.draw_report", fail)
    draw_after_run(tmp_path / "out")
    assert "no such luck" in (tmp_path / "out" / "report" / "error.txt").read_text()
