"""``aimcore probe`` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from loguru import logger
from PIL import Image
from trained_runs import captioning_experiment, write_run

from aimcore import Experiment, Probe
from aimcore.run import command
from aimcore.running.folder_lock import FolderLock
from aimcore.running.summary import ExperimentSummary, LossSummary, ProbeSummary, Summary, write_summary
from aimcore_evaluations import Captions
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import ImageFolder


@pytest.fixture(autouse=True)
def quiet_afterwards(monkeypatch: pytest.MonkeyPatch):
    """Commands add log sinks: take them away again. Drawing has its own tests."""
    monkeypatch.setattr("aimcore.report.page.draw_report", lambda out: out / "report.html")
    yield
    logger.remove()
    logger.disable("aimcore")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A study's folder with one run, which was probed by nearest neighbours."""
    return study_of(tmp_path, probed_by(tmp_path, KNNProbe(k=3)), "finished", {"knn": 0.125, "old": 0.25})


def probed_by(folder: Path, *probes: Probe, **changes: Any) -> Experiment:
    """A captioner of emoji, which is probed on a few pictures of two colours, as they are read at once."""
    for colour in ("blue", "red"):
        (folder / "pictures" / colour).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32 + number, 32), colour).save(folder / "pictures" / colour / f"{number}.png")
    source = ImageFolder(url=str(folder / "pictures"))
    data = attrs.evolve(captioning_experiment().data, probe_train=source, probe_test=source)
    return captioning_experiment(data=data, probes=probes, **changes)


def study_of(out: Path, experiment: Experiment, status: Any, scores: dict[str, float], **extra: Any) -> Path:
    write_run(out / experiment.name, experiment, step=experiment.num_steps)
    entry = ExperimentSummary(
        name=experiment.name,
        status=status,
        seed=0,
        num_steps=experiment.num_steps,
        losses={"caption": LossSummary(train_last_100=2.0, validation=2.5)},
        probes={name: ProbeSummary(top1=top1) for name, top1 in scores.items()} or None,
        extra={"protocols": {name: {"probe": name} for name in scores}, **extra},
        recipe=f"{experiment.name}/recipe.json",
    )
    other = ExperimentSummary(name="other", status="finished", seed=1, recipe="other/recipe.json")
    write_summary(Summary(study="table", machine={}, experiments=(entry, other)), out / "summary.json")
    return out


def entry_in(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())["experiments"][0]


def probe(out: Path, *words: str) -> int:
    return command(["probe", str(out / "tiny"), *words])


def test_a_run_is_probed_again_by_its_own_probes_and_other_scores_stay(out: Path) -> None:
    before = json.loads((out / "summary.json").read_text())
    assert probe(out) == 0
    after = json.loads((out / "summary.json").read_text())
    entry = after["experiments"][0]
    assert entry["probes"]["knn"]["top1"] != 0.125
    assert 0 <= entry["probes"]["knn"]["untrained_top1"] <= 1
    assert entry["probes"]["old"] == before["experiments"][0]["probes"]["old"]
    assert entry["extra"]["protocols"]["old"] == {"probe": "old"}
    assert entry["extra"]["protocols"]["knn"]["settings"]["k"] == 3
    assert after["experiments"][1] == before["experiments"][1]


def test_scores_are_those_of_the_weights_that_were_saved(out: Path) -> None:
    """The run was never trained: its weights are those of a fresh trunk of its seed, the very ones of 'untrained'."""
    assert probe(out) == 0
    score = entry_in(out)["probes"]["knn"]
    assert score["top1"] == score["untrained_top1"]


def test_images_that_cannot_be_read_are_counted(out: Path) -> None:
    (out / "pictures" / "red" / "damaged.png").write_bytes(b"no picture")
    assert probe(out) == 0
    counts = {"images that probes could not read": 1}
    assert entry_in(out)["left_out"] == {"probe_train": counts, "probe_test": counts}


def test_images_that_evaluations_cannot_read_are_counted(out: Path) -> None:
    (out / "pictures" / "red" / "damaged.png").write_bytes(b"no picture")
    assert probe(out, "--set", "probes=[]", "--set", 'evaluations=["zero_shot"]') == 0
    assert entry_in(out)["left_out"] == {"probe_test": {"images that evaluations could not read": 1}}


def test_other_probes_are_recorded_with_their_time_and_settings(out: Path) -> None:
    linear = '{"name": "linear", "epochs": 1, "learning_rates": [0.001]}'
    assert probe(out, "--set", f"probes=[{linear}]", "--set", "probe_image_sizes=[16]") == 0
    entry = entry_in(out)
    assert set(entry["probes"]) == {"knn", "old", "linear", "linear@16"}
    assert entry["probes"]["knn"] == {"top1": 0.125}
    later = entry["extra"]["probed_later"]
    assert set(later) == {"linear", "linear@16"}
    assert later["linear"]["probes"][0]["epochs"] == 1
    assert later["linear"]["probe_image_sizes"] == [16]
    assert json.loads((out / "tiny" / "recipe.json").read_text())["experiment"]["probes"][0]["name"] == "knn"


def test_a_run_that_failed_while_it_was_probed_is_finished_by_it(tmp_path: Path) -> None:
    out = study_of(tmp_path, probed_by(tmp_path, LinearProbe()), "failed", {}, error="InvalidValue: held_out")
    (out / "tiny" / "error.txt").write_text("Traceback")
    assert probe(out, "--set", 'probes=["knn"]') == 0
    entry = entry_in(out)
    assert (entry["status"], "error" in entry["extra"]) == ("finished", False)
    assert set(entry["probes"]) == {"knn"}
    assert not (out / "tiny" / "error.txt").exists()


def test_evaluations_are_measured_where_they_are_asked_for_or_missing(out: Path) -> None:
    assert probe(out, "--set", "probes=[]", "--set", 'evaluations=[{"name": "captions", "num_images": 2}]') == 0
    entry = entry_in(out)
    assert all(name.startswith("captions/") for name in entry["evaluations"])
    assert list(entry["extra"]["evaluation_protocols"]) == ["captions/train"]


def test_evaluations_that_are_known_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = probed_by(tmp_path, KNNProbe(), evaluations=(Captions(num_images=2),))
    out = study_of(tmp_path, experiment, "finished", {})
    assert probe(out) == 0
    first = entry_in(out)["evaluations"]
    monkeypatch.setattr(Captions, "scores", lambda *_: pytest.fail("measured again"))
    assert probe(out) == 0
    assert entry_in(out)["evaluations"] == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trunk.depth=2", "trunk.depth: belongs to what was trained and cannot be changed; what can be: probes, "),
        ("seed=1", "seed: belongs to what was trained"),
        ("data.image_size=64", "data.image_size: belongs to what was trained"),
        ("probes=[]", "there are none: name some"),
        ('probes=["knn", "knn"]', "two probes are called 'knn'"),
        ('probes=[{"name": "knn", "layers": [5]}]', "5"),
        ('probes=["nearest"]', "no probe is called 'nearest'"),
        ('evaluations=["captions", "captions"]', "evaluations.1: two evaluations are called 'captions/train'"),
    ],
)
def test_what_cannot_be_probed_is_said_and_nothing_is_written(
    out: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    before = (out / "summary.json").read_bytes()
    assert probe(out, "--set", change) == 2
    assert said in capsys.readouterr().err
    assert (out / "summary.json").read_bytes() == before


def test_damaged_weights_are_refused_and_nothing_is_written(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (weights,) = out.glob("tiny/checkpoints/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    before = (out / "summary.json").read_bytes()
    assert probe(out) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert (out / "summary.json").read_bytes() == before


def test_an_error_while_probing_changes_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(KNNProbe, "fit", broken)
    before = (out / "summary.json").read_bytes()
    with pytest.raises(RuntimeError, match="no such luck"):
        probe(out)
    assert (out / "summary.json").read_bytes() == before
    assert not (out / ".lock").exists()


def test_a_folder_that_a_run_is_using_is_refused(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FolderLock(out):
        assert probe(out) == 2
    assert "is in use by process" in capsys.readouterr().err


def test_several_processes_are_refused(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert probe(out) == 2
    assert "in one process, not in 2: start it without torchrun" in capsys.readouterr().err


def test_a_run_without_a_summary_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "tiny", captioning_experiment(probes=(KNNProbe(),)), step=2)
    assert probe(tmp_path) == 2
    assert "summary.json does not exist: scores are kept there" in capsys.readouterr().err
