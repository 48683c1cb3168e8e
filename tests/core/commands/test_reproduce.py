"""``aimcore reproduce``: several studies over seeds, skipped where they are finished, and one page of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aimcore import Experiment, Study
from aimcore.cli import reproduce
from aimcore.run import command
from aimcore.running import preflight, study_run
from aimcore.running.preflight import check_study
from aimcore.running.summary import ExperimentSummary, Summary

STUDY = """
from aimcore import Data, Engine, Experiment, Study
from aimcore_objectives import NoTraining
from aimcore_probes import KNNProbe
from aimcore_sources import BundledFashionMNIST, FewLabels
from aimcore_trunks import ViT

def study(scale):
    train, test = (FewLabels(source=BundledFashionMNIST(split=split), per_class=3) for split in ("train", "test"))
    data = Data(train=train, validation=test, batch_size=4, image_size=28, eval_crop=1.0)
    runs = [
        Experiment(
            name=name, data=data, trunk=ViT(width=width, depth=1, num_heads=2, patch_size=14), objective=NoTraining(),
            num_steps=0, probes=(KNNProbe(k=1),), engine=Engine(num_threads=1),
        )
        for name, width in (("narrow", 8), ("wide", 16))
    ]
    return Study(name="{name}", experiments=runs, paper={{"narrow": {{"knn": 0.5}}, "wide": {{"knn": 0.6}}}})
"""


def test_two_studies_are_run_over_seeds_and_compared_on_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(_study(name))
    out = tmp_path / "out"
    given = ["reproduce", *(str(tmp_path / f"{name}.py") for name in ("first", "second")), "--seeds", "2"]
    assert command([*given, "--scale", "smoke", "--out", str(out)]) == 0
    page = (out / "reproduction.md").read_text()
    assert "## first" in page
    assert "## second" in page
    assert "| wide | narrow | knn | +10.0 |" in page
    assert "seeds 0 to 1" in page
    before = (out / "first" / "summary.json").stat().st_mtime_ns
    runs = {path: path.stat().st_mtime_ns for path in (out / "first").glob("*/recipe.json")}
    assert len(runs) == 4
    assert command([*given, "--scale", "smoke", "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    assert (out / "first" / "summary.json").stat().st_mtime_ns >= before
    assert "finished" in capsys.readouterr().err


def test_a_study_that_cannot_run_is_refused_before_the_first_one_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good.py").write_text(_study("good"))
    (tmp_path / "bad.py").write_text(_study("bad").replace("per_class=3", "per_class=5000"))
    out = tmp_path / "out"
    paths = [str(tmp_path / "good.py"), str(tmp_path / "bad.py")]
    assert command(["reproduce", *paths, "--scale", "smoke", "--out", str(out)]) == 2
    assert "per_class" in capsys.readouterr().err
    assert not out.exists()


def test_studies_that_would_share_a_folder_are_refused_before_the_first_one_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ("one", "two"):
        (tmp_path / f"{file}.py").write_text(_study("same"))
    out = tmp_path / "out"
    assert command(["reproduce", *(str(tmp_path / f"{file}.py") for file in ("one", "two")), "--out", str(out)]) == 2
    assert "two.py both have a study called 'same'" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_with_other_runs_is_refused_before_the_first_study_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(_study(name))
    out = tmp_path / "out"
    (out / "second" / "narrow-seed-0").mkdir(parents=True)
    (out / "second" / "narrow-seed-0" / "recipe.json").write_text("{}")
    paths = [str(tmp_path / f"{name}.py") for name in ("first", "second")]
    assert command(["reproduce", *paths, "--scale", "smoke", "--seeds", "1", "--out", str(out)]) == 2
    assert f"{out / 'second'} holds runs that this study cannot continue" in capsys.readouterr().err
    assert not (out / "first").exists()


def test_runs_of_further_seeds_in_the_folder_are_not_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(_study("once"))
    one, two = (reproduce._seeded(tmp_path / "study.py", "smoke", number) for number in (1, 2))
    entries = tuple(_interrupted(experiment) for experiment in two.experiments)
    kept = reproduce._asked_for(one, Summary(study="once", machine={}, experiments=entries))
    assert [entry.name for entry in kept.experiments] == ["narrow-seed-0", "wide-seed-0"]


def test_each_study_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.py").write_text(_study("once"))
    checked: list[str] = []

    def counting(study: Study, **given: Any) -> Any:
        checked.append(study.name)
        return check_study(study, **given)

    monkeypatch.setattr(study_run, "check_study", counting)
    monkeypatch.setattr(preflight, "check_study", counting)
    monkeypatch.setattr(study_run, "run_checked", _interrupted)
    monkeypatch.setattr(reproduce, "_write", lambda *_: None)
    given = [
        "reproduce",
        str(tmp_path / "study.py"),
        "--scale",
        "smoke",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert command(given) == 130
    assert checked == ["once"]


def _interrupted(experiment: Experiment, *_: object, **__: object) -> ExperimentSummary:
    return ExperimentSummary(name=experiment.name, status="interrupted", seed=0, recipe="recipe.json")


def _study(name: str) -> str:
    return STUDY.replace("{name}", name).replace("{{", "{").replace("}}", "}")
