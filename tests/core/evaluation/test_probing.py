"""Probing an experiment end to end on toy parts."""

from __future__ import annotations

import json

import pytest
import torch
from core.evaluation.toys import Nearest, OpenShades, Shades, ToyTrunkModule, experiment

from aimcore import InvalidValue, OpenSource, Sample, Source, UnreadableSample, component
from aimcore.evaluation import Outcome, ProbeScore, check_probes, probe_experiment, wilson_interval
from aimcore.evaluation.protocol import SELECTION


def _score(**sources: Source) -> ProbeScore:
    return probe_experiment(experiment(**sources), ToyTrunkModule(), ToyTrunkModule(scale=0.0))["nearest"]


def test_the_trained_trunk_the_untrained_one_and_raw_pixels_are_scored_by_the_same_probe() -> None:
    score = _score()
    # The untrained toy puts out zeros, so its nearest centre is class 0: half of the test images.
    assert (score.top1, score.untrained_top1, score.raw_pixels_top1) == (1.0, 0.5, 1.0)
    assert score.ci95 == wilson_interval(10, 10)


def test_a_tenth_of_each_training_class_is_held_out_and_the_test_set_is_whole() -> None:
    card = _score().card
    sizes = {split: entry["num_images"] for split, entry in card["splits"].items()}
    assert sizes == {"train": 36, "held_out": 4, "test": 10}


def test_probe_sources_take_the_place_of_training_and_validation_images() -> None:
    card = _score(probe_train=Shades(length=60), probe_test=Shades(length=6)).card
    assert [entry["num_images"] for entry in card["splits"].values()] == [54, 6, 6]


def test_the_card_says_all_that_a_reader_needs_and_is_json() -> None:
    card = json.loads(json.dumps(_score().card, allow_nan=False))
    assert card["selection"] == SELECTION
    assert (card["order"], card["attention"], card["layers"]) == ("backwards", "bidirectional", [1, 2])
    assert card["splits"]["held_out"] == {"source": "shades", "num_images": 4}
    assert set(card["choices"]) == {"trained", "untrained", "raw_pixels"}


def test_the_card_states_that_probes_see_no_augmentation() -> None:
    card = _score().card
    assert card["augmentation"].startswith("none")
    assert card["transform"].startswith("short side to 4 px (bicubic), centre crop to 4 px")


def test_all_probes_share_one_reading_of_the_images_per_trunk() -> None:
    @component("first_block")
    class FirstBlock(Nearest):
        layers: tuple[int, ...] = (0,)

    trained = ToyTrunkModule()
    scores = probe_experiment(experiment(probes=(Nearest(), FirstBlock())), trained, ToyTrunkModule())
    # 40 training and 10 test images, in one batch each.
    assert len(trained.readings) == 2
    assert (scores["nearest"].layers, scores["first_block"].layers) == ((1, 2), (0,))


def test_a_study_computes_raw_pixels_once_for_experiments_with_the_same_images() -> None:
    cache: dict[str, Outcome] = {}
    Nearest.fits.clear()
    first = probe_experiment(experiment("a"), ToyTrunkModule(), ToyTrunkModule(), raw_pixels=cache)
    second = probe_experiment(experiment("b"), ToyTrunkModule(), ToyTrunkModule(), raw_pixels=cache)
    # Trained, untrained and raw for the first; trained and untrained for the second.
    assert (len(Nearest.fits), len(cache)) == (5, 1)
    assert first["nearest"].raw_pixels_top1 == second["nearest"].raw_pixels_top1


@pytest.mark.parametrize(
    "other", [experiment(train=Shades(length=42)), experiment(probes=(Nearest(layers=(0,)),))], ids=["images", "probe"]
)
def test_raw_pixels_are_not_shared_between_other_images_or_probes(other) -> None:  # type: ignore[no-untyped-def]
    cache: dict[str, Outcome] = {}
    probe_experiment(experiment(), ToyTrunkModule(), ToyTrunkModule(), raw_pixels=cache)
    probe_experiment(other, ToyTrunkModule(), ToyTrunkModule(), raw_pixels=cache)
    assert len(cache) == 2


def test_an_experiment_without_probes_has_no_scores_and_needs_no_labels() -> None:
    unprobed = experiment(probes=(), train=Shades(labelled=False))
    check_probes(unprobed)
    assert probe_experiment(unprobed, ToyTrunkModule(), ToyTrunkModule()) == {}


def test_unlabelled_sources_are_named_at_once_with_what_to_do() -> None:
    unlabelled = experiment(train=Shades(labelled=False), validation=Shades(class_names=()))
    with pytest.raises(InvalidValue) as caught:
        check_probes(unlabelled)
    assert [path for path, _ in caught.value.problems] == ["data.train", "data.validation"]
    assert "give data.probe_train and data.probe_test labelled sources" in str(caught.value)


def test_a_test_source_of_other_classes_is_refused() -> None:
    with pytest.raises(
        InvalidValue, match=r"data\.probe_test: must have the classes of data\.train.*1 classes \(dim\)"
    ):
        check_probes(experiment(probe_test=Shades(class_names=("dim",))))


def test_two_probes_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidValue, match="two probes are called 'nearest'"):
        check_probes(experiment(probes=(Nearest(), Nearest(layers=(0,)))))


def test_an_unreadable_first_image_does_not_make_a_source_unlabelled() -> None:
    class Damaged(OpenShades):
        def read(self, index: int) -> Sample:
            if index == 0:
                raise UnreadableSample("0", "damaged")
            return super().read(index)

    @component("damaged")
    class DamagedShades(Source):
        def open(self) -> OpenSource:
            return Damaged(40, True, ("dark", "light"))

    assert _score(train=DamagedShades()).card["splits"]["train"]["num_images"] == 35
    assert torch.is_grad_enabled()
