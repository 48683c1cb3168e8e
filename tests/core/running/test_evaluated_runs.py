"""Evaluations in real runs: checked before training, measured after it, alike at every ZeRO stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from trained_runs import captioning_experiment

from aimcore import Data, Engine, InvalidValue, Study
from aimcore.report import ExperimentSummary
from aimcore.running.experiment_run import run_experiment
from aimcore.running.preflight import check_study
from aimcore_evaluations import Captions, Retrieval, ZeroShot
from aimcore_objectives import NextPatch
from aimcore_sources import BundledEmoji, BundledFashionMNIST
from aimcore_tokenizers import Bytes

EVALUATIONS = (Retrieval(max_images=12), Captions(num_images=6), ZeroShot(max_images=12))


def run(folder: Path, stage: int) -> ExperimentSummary:
    """A captioner of two steps."""
    engine = Engine(zero_stage=stage, precision="fp32", num_threads=1)  # type: ignore[arg-type]
    source = BundledEmoji(split="test", skin_tones=False, styles=("google",))
    data = Data(train=source, validation=source, batch_size=4, image_size=32, caption_weights={"name": 1.0})
    experiment = captioning_experiment(engine=engine, evaluations=EVALUATIONS, data=data)
    return run_experiment(experiment, folder / str(stage), paper={"vqav2": 0.7})


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ExperimentSummary]:
    folder = tmp_path_factory.mktemp("stages")
    return {stage: run(folder, stage) for stage in (0, 3)}


def test_scores_are_in_the_summary_with_chance_and_interval(stages: dict[int, ExperimentSummary]) -> None:
    found = stages[0].evaluations
    assert found is not None
    assert {name.partition("/")[0] for name in found} == {"retrieval", "captions", "zero_shot"}
    recall = found["retrieval/image_to_text@5"]
    assert (recall.num, recall.chance) == (12, pytest.approx(5 / 12))
    assert recall.ci95 is not None
    assert stages[0].not_run == ("vqav2",)


def test_every_evaluation_has_a_card_of_how_it_was_measured(stages: dict[int, ExperimentSummary]) -> None:
    cards = stages[0].extra["evaluation_protocols"]
    assert list(cards) == ["retrieval", "captions/train", "zero_shot"]
    retrieval = cards["retrieval"]
    assert retrieval["judged"] == dict.fromkeys(retrieval["judged"], 12)
    assert retrieval["settings"]["max_images"] == 12
    assert retrieval["compared_by"] == "log-likelihood of the text given the image"
    assert (retrieval["source"]["name"], retrieval["source"]["split"]) == ("bundled_emoji", "test")
    assert retrieval["text"] == {"tokenizer": "bytes", "context_length": 8}
    assert cards["zero_shot"]["num_classes"] == len(BundledEmoji(split="test").open().class_names)
    assert "centre crop to 32 px" in cards["zero_shot"]["transform"]


def test_a_partitioned_module_is_evaluated_as_a_whole_one(stages: dict[int, ExperimentSummary]) -> None:
    assert stages[3].status == "finished"
    assert stages[3].evaluations == stages[0].evaluations


def problems(**changes: Any) -> list[tuple[str, str]]:
    """The problems that are reported before a study with one experiment runs."""
    study = Study(name="table", experiments=[captioning_experiment(**changes)])
    with pytest.raises(InvalidValue) as caught:
        check_study(study)
    return list(caught.value.problems)


def test_what_an_objective_cannot_is_reported_before_training() -> None:
    ((path, message),) = problems(objective=NextPatch(), evaluations=(Captions(), Retrieval()))[:1]
    assert path == "tiny.evaluations.0"
    assert message == "objective 'next_patch' writes no captions"


def test_missing_data_is_reported_before_training() -> None:
    ((path, message),) = problems(evaluations=(Retrieval(group_by="species"),))
    assert path == "tiny.evaluations.0"
    assert "the first samples have nothing called 'species'" in message


def test_sources_without_captions_are_reported_once() -> None:
    source = BundledFashionMNIST()
    found = problems(data=Data(train=source, validation=source, batch_size=4, image_size=32), evaluations=(ZeroShot(),))
    assert [path for path, _ in found] == ["tiny.data.train", "tiny.data.validation"]


def test_a_tokenizer_that_leaves_ends_unlearnt_is_reported_where_captions_are_compared() -> None:
    endless: Any = attrs.evolve(captioning_experiment().objective, tokenizer=Bytes())  # type: ignore[misc]
    ((_, message),) = problems(objective=endless, evaluations=(Captions(), ZeroShot()))
    assert "set supervise_end" in message
