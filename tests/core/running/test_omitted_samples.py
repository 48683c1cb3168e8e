"""What was left out and what could not be read, together, as a run leaves it in its summary."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image
from trained_runs import captioning_experiment

from aimcore import Data
from aimcore.evaluation import Evaluated
from aimcore.running import omitted_samples
from aimcore.running.experiment_run import run_experiment
from aimcore.running.omitted_samples import joined, not_evaluated, unreadable_of
from aimcore_evaluations import Captions, Retrieval
from aimcore_probes import KNNProbe
from aimcore_sources import CaptionedFolder, ImageFolder

REPLACED = "reads that failed in training since it was last started, in whose place others were drawn"


def folder_with(root: Path, good: int, damaged: int, notes: int = 0) -> ImageFolder:
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (good, 28, 28, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        Image.fromarray(picture).save(root / f"{number}.png")
    for number in range(damaged):
        (root / f"damaged{number}.png").write_bytes(b"no image")
    for number in range(notes):
        (root / f"{number}.txt").write_text("")
    return ImageFolder(url=str(root))


def test_a_run_counts_what_it_could_not_read(make_experiment: Any, tmp_path: Path) -> None:
    train = folder_with(tmp_path / "train", good=6, damaged=2, notes=3)
    validation = folder_with(tmp_path / "validation", good=3, damaged=2)
    data = Data(train=train, validation=validation, batch_size=4, image_size=28)
    # Four steps of four samples are two epochs, which meet both damaged images once each. Replacements may do so too.
    found = run_experiment(make_experiment("one", data=data, num_steps=4), tmp_path / "out").left_out or {}
    assert found["validation"] == {"samples that could not be read": 2}
    assert found["train"]["files of other kinds (.txt)"] == 3
    assert found["train"][REPLACED] >= 4


def test_a_run_counts_what_its_probes_could_not_read(make_experiment: Any, tmp_path: Path) -> None:
    for name, num_damaged in (("train", 1), ("test", 2)):
        (tmp_path / name).mkdir()
        folder_with(tmp_path / name / "a", good=3, damaged=num_damaged)
        folder_with(tmp_path / name / "b", good=3, damaged=0)
    plain = make_experiment("one")
    sources = {f"probe_{name}": ImageFolder(url=str(tmp_path / name)) for name in ("train", "test")}
    experiment = attrs.evolve(plain, data=attrs.evolve(plain.data, **sources), probes=(KNNProbe(),))
    assert run_experiment(experiment, tmp_path / "out").left_out == {
        "probe_train": {"images that probes could not read": 1},
        "probe_test": {"images that probes could not read": 2},
    }


def test_a_run_counts_what_its_evaluations_could_not_read(tmp_path: Path) -> None:
    folder_with(tmp_path / "pictures", good=6, damaged=2)
    lines = [{"file": one.name, "captions": {"name": one.stem}} for one in sorted((tmp_path / "pictures").iterdir())]
    (tmp_path / "pictures" / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    plain, captioned = captioning_experiment(), CaptionedFolder(url=str(tmp_path / "pictures"))
    experiment = attrs.evolve(
        plain,
        data=attrs.evolve(plain.data, validation=captioned),
        evaluations=(Retrieval(recall_at=(1,)), Captions(split="validation")),
    )
    assert run_experiment(experiment, tmp_path / "out").left_out == {
        "validation": {"samples that could not be read": 2, "images that evaluations could not read": 2}
    }


@pytest.mark.usefixtures("training")
def test_a_run_that_reads_everything_counts_nothing(make_experiment: Any, tmp_path: Path) -> None:
    assert run_experiment(make_experiment("one"), tmp_path).left_out is None


def test_every_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omitted_samples, "from_everyone", lambda own: [own, (1, 5)])
    assert unreadable_of(2, 0) == {"train": {REPLACED: 3}, "validation": {"samples that could not be read": 5}}
    monkeypatch.undo()
    assert unreadable_of(0, 1) == {"validation": {"samples that could not be read": 1}}


def test_images_that_several_processes_could_not_read_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(omitted_samples.logger, "warning", lambda text, *words: logged.append(text.format(*words)))
    monkeypatch.setattr(omitted_samples, "from_everyone", lambda own: [own, {"validation": {4, 7}, "train": {0}}])
    assert not_evaluated(Evaluated(unread={"validation": {4, 5}})) == {
        "validation": {"images that evaluations could not read": 3},
        "train": {"images that evaluations could not read": 1},
    }
    assert "data.validation leaves out 3 images that evaluations could not read" in logged


def test_two_counts_are_joined_field_by_field() -> None:
    assert joined({"train": {"a": 1}}, {"train": {"b": 2}, "validation": {"c": 3}}) == {
        "train": {"a": 1, "b": 2},
        "validation": {"c": 3},
    }
    assert joined({}, None) is None
