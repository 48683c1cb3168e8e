"""The scaling study of AIMv2, Figure 2: its runs, and that one command gives its plots."""

from __future__ import annotations

from pathlib import Path

import pytest
from loguru import logger

from aimcore import Scale, Study
from aimcore.report import read_summary
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.starting_points import steps_to_keep
from aimcore.running.study_files import load_study

pytestmark = pytest.mark.usefixtures("vocabulary")
EXAMPLE = Path(__file__).parents[2] / "examples" / "aimv2_scaling.py"


def study(scale: Scale) -> Study:
    return load_study(EXAMPLE, scale)


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_cooldown_may_leave_its_long_run(scale: Scale) -> None:
    check_study(study(scale), with_data=False)


def test_the_papers_scale_has_four_sizes_of_seven_cooldowns_up_to_six_billion_samples() -> None:
    made = study("paper")
    assert made.scaling is not None
    assert [len(names) for names in made.scaling.curves.values()] == [7, 7, 7, 7]
    samples = [one.num_steps * one.data.batch_size for one in made.experiments if one.name.startswith("3B")]
    assert samples[0] == pytest.approx(5e9, rel=0.01)
    assert (min(samples), max(samples)) == (pytest.approx(0.5e9, rel=0.02), pytest.approx(6e9, rel=0.01))


def test_cooldowns_last_a_fifth_of_the_steps_before_them_and_the_long_run_keeps_those() -> None:
    made = study("paper")
    cooled = [one for one in made.experiments if one.branch is not None]
    assert all(one.schedule.cooldown_steps * 5 == one.branch.step for one in cooled if one.branch is not None)
    kept = steps_to_keep(made, made.experiments[0])
    assert kept == {50_000, 75_000, 115_000, 175_000, 265_000, 400_000, 610_000}


def test_sizes_differ_in_nothing_but_trunk_and_optimiser() -> None:
    long = [one for one in study("small").experiments if one.branch is None]
    assert len({one.trunk for one in long}) == 4
    assert all(one.objective == long[0].objective and one.data == long[0].data for one in long)


def test_one_command_gives_points_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(EXAMPLE), "--scale", "smoke", "--out", str(tmp_path / "out"), "--set", "engine.num_threads=1"]
    assert main(arguments) == 0
    logger.remove()
    logger.disable("aimcore")
    entries = read_summary(tmp_path / "out" / "summary.json").experiments
    assert all(entry.status == "finished" and entry.budget is not None for entry in entries)
    assert {"scaling-samples.png", "scaling-compute.png"} <= {
        path.name for path in (tmp_path / "out" / "report").iterdir()
    }
    assert "No law is fitted to the lower envelope: " in capsys.readouterr().out
