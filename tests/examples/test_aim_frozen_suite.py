"""The study of AIM's Table 6: its numbers, the data sets that are there, and those that are not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_files import WRITERS

from aimcore import AimcoreError, InvalidValue, Scale, Study
from aimcore.engine.cost import cost_of
from aimcore.report import read_summary
from aimcore.run import main
from aimcore.running.preflight import check_study
from aimcore.running.study_files import load_study
from aimcore_trunks.timm_models import TimmTrunk

FILE = Path(__file__).parents[2] / "examples" / "aim_frozen_suite.py"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study's module, which looks for data sets in an empty folder."""
    monkeypatch.setenv("BENCHMARKS", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(str(FILE.parent))
    monkeypatch.delitem(sys.modules, FILE.stem, raising=False)
    import aim_frozen_suite

    return aim_frozen_suite  # type: ignore[no-any-return]


def study(scale: Scale) -> Study:
    return load_study(FILE, scale)


def test_the_rows_of_table_6_have_the_means_of_the_paper(module: ModuleType) -> None:
    for (row, scores), mean in zip(module.TABLE_6.items(), module.AVERAGES, strict=True):
        assert sum(scores) / 15 == pytest.approx(mean, abs=0.051), row


@pytest.mark.usefixtures("module")
def test_without_data_sets_the_small_scales_run_on_bundled_images_and_show_the_papers_numbers() -> None:
    for scale in ("smoke", "small"):
        made = study(scale)  # type: ignore[arg-type]
        check_study(made)
        assert [one.name for one in made.experiments] == [
            "pretrain", "pretrained-fashion_mnist", "random-fashion_mnist", "pretrained-emoji", "random-emoji",
        ]  # fmt: skip
        assert made.paper == {}
        assert len(made.paper_only) == 15
        assert made.paper_only["infographic"] == {"attentive": 0.452}


def test_a_row_runs_and_its_report_names_what_was_not_run(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(FILE), "--scale", "smoke", "--only", "random-emoji", "--out", str(out)]) == 0
    assert "rxrx1" in capsys.readouterr().out.partition("Not run")[2]
    assert '<th scope="row">rxrx1</th>' in (out / "report.html").read_text()
    lines = list(module.table(read_summary(out / "summary.json")))
    assert lines[-1].split() == ["measured", *["not", "run"] * 16]
    assert lines[7].split()[:2] == ["AIM-0.6B", "78.5"]


def test_data_sets_that_are_there_are_rows_beside_the_papers_numbers(module: ModuleType, tmp_path: Path) -> None:
    for name in ("cifar10", "pets"):
        WRITERS[name](tmp_path / "data")
    assert module.present() == ("cifar10", "pets")
    made = study("paper")
    assert [one.name for one in made.experiments] == ["cifar10", "pets"]
    assert made.paper == {"cifar10": {"attentive": 0.972}, "pets": {"attentive": 0.93}}
    assert len(made.paper_only) == 13
    with pytest.raises(InvalidValue) as caught:  # before anything runs: these copies are a few images
        check_study(made)
    assert "10 train images of 2 classes, and Table 9 of arXiv:2401.08541 has 50,000 of 10" in str(caught.value)
    assert study("small").paper["pretrained-pets"] == {"attentive": 0.93}


@pytest.mark.usefixtures("module")
def test_the_papers_scale_is_costed_without_data_and_says_what_is_missing() -> None:
    made = study("paper")
    assert len(made.experiments) == 15
    cost = cost_of(made.experiments[0])
    assert (cost.trunk_parameters, cost.flops_per_run) == (680_535_552, 0)
    with pytest.raises(InvalidValue, match=r"aim_600m_2bimgs_attnprobe_backbone.safetensors"):
        check_study(made, with_data=False)


def test_baselines_of_the_paper_are_encoders_of_timm(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENCODER", "DINO ViT-B/8")
    assert module.encoder() == TimmTrunk(model="vit_base_patch8_224", patch_size=8, num_extra=1)
    monkeypatch.setattr(module, "ENCODER", "DINOv3")
    with pytest.raises(AimcoreError, match=r"AIM_ENCODER must be one of AIM-0.6B, .*, got 'DINOv3'"):
        module.encoder()
