"""Probing an experiment end to end on toy parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np
import numpy.typing as npt
import pytest
import torch
from core.evaluation.toys import Nearest, OpenShades, Shades, ToyTrunkModule, experiment

from aimcore import FittedProbe, InvalidValue, LabelledFeatures, OpenSource, Sample, Source, UnreadableSample, component
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.probes import FeatureStream
from aimcore.evaluation import Outcome, ProbeScore, check_probes, probe_experiment, probing, wilson_interval
from aimcore.evaluation import stored_features as stored
from aimcore.evaluation.probe_images import chosen_numbers
from aimcore.evaluation.protocol_cards import SELECTION
from aimcore.running.measurements import probe_summaries


@component("few")
class Few(Nearest):
    """Reads tokens, of few images."""

    reads = "tokens"
    max_train_images: int | None = 20

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        pooled = (attrs.evolve(part, features=part.features.mean(1)) for part in (train, held_out))
        return _OfTokens(super().fit(*pooled, seed))

    def departures(self) -> list[str]:
        return ["few images"]


class _OfTokens(FittedProbe):
    def __init__(self, fitted: FittedProbe) -> None:
        self.fitted, self.choice = fitted, fitted.choice

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        return self.fitted.predict(features.mean(1))


@component("greedy")
class Greedy(Nearest):
    """Holds nothing out."""

    holds_out: ClassVar[bool] = False


def _score(**sources: Source) -> ProbeScore:
    return probe_experiment(experiment(**sources), ToyTrunkModule(), ToyTrunkModule(scale=0.0))["nearest"]


def test_the_trained_trunk_the_untrained_one_and_raw_pixels_are_scored_by_the_same_probe() -> None:
    score = _score()
    # The untrained toy puts out zeros, so its nearest centre is class 0: half of the test images.
    assert (score.top1, score.untrained_top1, score.raw_pixels_top1) == (1.0, 0.5, 1.0)
    assert score.ci95 == wilson_interval(10, 10)


def test_the_difference_from_a_baseline_is_resampled_image_by_image() -> None:
    found = probe_experiment(experiment(), ToyTrunkModule(), ToyTrunkModule(scale=0.0))
    summary = probe_summaries(found)["nearest"]
    # All ten images are right, and so are raw pixels; the untrained trunk is right on five. Binomial(10, 1/2) / 10.
    assert (summary.over_raw_pixels95, summary.over_untrained95) == ((0.0, 0.0), (0.2, 0.8))
    assert summary.correct is not None
    assert summary.correct.right_n().tolist() == [True] * 10


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
    assert card["splits"]["train"]["source"].items() >= {"name": "shades", "length": 40}.items()
    assert card["splits"]["held_out"] == {"source": "as train", "num_images": 4}
    assert card["train_images"] == {"used": 40, "available": 40, "chosen": "all"}
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


def test_every_probe_is_logged_with_its_trunk_and_score(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(probing.logger, "info", lambda text, *words: logged.append(text.format(*words)))
    score = probe_experiment(experiment("a"), ToyTrunkModule(), ToyTrunkModule())["nearest"]
    assert score.untrained_top1 is not None
    assert score.raw_pixels_top1 is not None
    assert logged == [
        f"a: probe nearest on the trained trunk: top-1 {score.top1:.1%} of 10 test images",
        f"a: probe nearest on the untrained trunk: top-1 {score.untrained_top1:.1%} of 10 test images",
        f"a: probe nearest on raw pixels: top-1 {score.raw_pixels_top1:.1%} of 10 test images",
    ]


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


class OpenOdd(OpenShades):
    """Its last label is 2; there are two classes."""

    known = True

    def read(self, index: int) -> Sample:
        read = super().read(index)
        return attrs.evolve(read, label=2) if index == self.length - 1 else read

    def known_labels(self) -> npt.NDArray[np.int64] | None:
        return np.array([self.label(index) for index in range(len(self))]) if self.known else None


@component("odd")
class Odd(Source):
    known: bool = True

    def open(self) -> OpenSource:
        opened = OpenOdd(40, True, ("dark", "light"))
        opened.known = self.known
        return opened


def test_labels_beyond_the_classes_are_found_before_training_or_named_when_they_are_met() -> None:
    with pytest.raises(InvalidValue, match=r"data\.train: labels must lie from 0 to 1, and 1 do not: 2 at index 39"):
        check_probes(experiment(train=Odd()))
    check_probes(experiment(train=Odd(known=False)))
    with pytest.raises(InvalidLabel, match=r"labels must lie from 0 to 1, and 1 of 40 .* do not: 2 of sample 39"):
        _score(train=Odd(known=False))


def test_two_probes_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidValue, match="two probes are called 'nearest'"):
        check_probes(experiment(probes=(Nearest(), Nearest(layers=(0,)))))


@component("own_classes")
class OwnClasses(Source):
    """Every image is of a class of its own."""

    length: int = 40

    def open(self) -> OpenSource:
        return OpenOwnClasses(self.length, True, tuple(map(str, range(self.length))))


class OpenOwnClasses(OpenShades):
    def label(self, index: int) -> int | None:
        return index


@pytest.mark.parametrize(
    ("probe", "length", "lacking"),
    [
        (Nearest(), 40, "no class has two images: give"),
        (Few(), 40, "no class has two images (among the 20 that max_train_images takes): give"),
        (Nearest(), 2, "of 2 images none can be held out, as two are trained on: give"),
        (
            Few(max_train_images=1),
            40,
            "of 1 images none can be held out, as two are trained on (among the 1 that",
        ),
    ],
)
def test_a_probe_that_holds_images_out_needs_two_of_a_class(probe: Nearest, length: int, lacking: str) -> None:
    source = OwnClasses(length=length)
    with pytest.raises(InvalidValue) as raised:
        check_probes(experiment(probes=(probe,), probe_train=source, probe_test=source))
    ((path, message),) = raised.value.problems
    assert path == "data.probe_train"
    assert lacking in message


def test_a_probe_that_holds_nothing_out_needs_no_second_image_of_a_class() -> None:
    source = OwnClasses(length=2)
    check_probes(experiment(probes=(Greedy(),), probe_train=source, probe_test=source))
    check_probes(experiment(probes=(Nearest(),), train=Shades(length=3)))


def test_few_labels_are_read_to_find_two_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(OpenShades, "label", lambda _, index: asked.append(index) or index % 2)
    check_probes(experiment(train=Shades(length=40)))
    assert max(asked) == 2


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


def test_a_probe_of_few_images_has_its_own_splits_next_to_one_of_all() -> None:
    trained = ToyTrunkModule()
    scores = probe_experiment(experiment(probes=(Nearest(), Few())), trained, ToyTrunkModule())
    sizes = {name: [split["num_images"] for split in score.card["splits"].values()] for name, score in scores.items()}
    assert sizes == {"nearest": [36, 4, 10], "few": [18, 2, 10]}
    assert len(trained.readings) == 2


def test_the_card_says_how_many_training_images_were_used_and_what_departs_from_the_paper() -> None:
    card = probe_experiment(experiment(probes=(Few(),)), ToyTrunkModule(), ToyTrunkModule())["few"].card
    rule = "by hash of the image's number, among those that could be read"
    assert card["train_images"] == {"used": 20, "available": 40, "chosen": rule}
    assert card["departures"] == ["few images"]


def test_images_that_no_probe_wants_are_not_read() -> None:
    read: list[int] = []

    class Watched(OpenShades):
        def read(self, index: int) -> Sample:
            read.append(index)
            return super().read(index)

        def label(self, index: int) -> int:
            return index % 2

    @component("watched")
    class WatchedShades(Source):
        def open(self) -> OpenSource:
            return Watched(40, True, ("dark", "light"))

    few = experiment(probes=(Few(),), train=WatchedShades())
    probe_experiment(few, ToyTrunkModule(), ToyTrunkModule())
    # Once by each trunk, once as pixels.
    assert len(read) == 3 * 20
    assert len(set(read)) == 20


def test_fewer_images_are_a_part_of_more() -> None:
    few, more = chosen_numbers(1000, 10), chosen_numbers(1000, 100)
    assert few is not None
    assert more is not None
    assert (len(few), len(more)) == (10, 100)
    assert set(few.tolist()) < set(more.tolist())
    assert chosen_numbers(1000, 1000) is None


def test_a_probe_that_chooses_nothing_gets_all_images_and_holds_none_out() -> None:
    card = probe_experiment(experiment(probes=(Greedy(),)), ToyTrunkModule(), ToyTrunkModule())["greedy"].card
    assert [split["num_images"] for split in card["splits"].values()] == [40, 0, 10]
    assert (card["selection"], card["held_out_rule"]) == ("nothing is chosen", "none is held out")


def test_blocks_that_the_trunk_has_not_are_refused_before_training() -> None:
    @component("deep")
    class Deep(Nearest):
        def layers_of(self, depth: int) -> tuple[int, ...]:
            raise InvalidValue("probe", [("layers", f"depth is {depth}")])

    with pytest.raises(InvalidValue, match="layers: depth is 3"):
        check_probes(experiment(probes=(Deep(),)))


def _cached(url: str, trained: ToyTrunkModule | None = None, **data: Source) -> dict[str, ProbeScore]:
    probed = experiment(probes=(Nearest(), Few()), **data)
    return probe_experiment(probed, trained or ToyTrunkModule(), ToyTrunkModule(scale=0.0), cache_url=url)


def test_a_cache_spares_the_second_reading_and_changes_no_score(tmp_path: Path) -> None:
    first, second = ToyTrunkModule(), ToyTrunkModule()
    scores = [_cached(str(tmp_path), trunk) for trunk in (first, second)]
    uncached = probe_experiment(experiment(probes=(Nearest(), Few())), ToyTrunkModule(), ToyTrunkModule(scale=0.0))
    assert (len(first.readings), len(second.readings)) == (2, 0)
    assert scores == [uncached, uncached]


def test_only_what_is_not_cached_is_computed(tmp_path: Path) -> None:
    _cached(str(tmp_path))
    others = ToyTrunkModule(), ToyTrunkModule(scale=2.0), ToyTrunkModule()
    _cached(str(tmp_path), others[0], train=Shades(length=42))
    _cached(str(tmp_path), others[1])
    # Other training images, but the same test images; other weights; nothing else.
    _cached(str(tmp_path), others[2])
    assert [len(trunk.readings) for trunk in others] == [1, 2, 0]


def test_damaged_features_are_computed_again(tmp_path: Path) -> None:
    whole = _cached(str(tmp_path))
    for labels in tmp_path.glob("*.zarr/labels/c/0"):
        labels.unlink()
    trunk = ToyTrunkModule()
    assert _cached(str(tmp_path), trunk) == whole
    assert len(trunk.readings) == 2


def test_features_too_large_for_memory_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed: list[int] = []

    @component("streaming")
    class Streaming(Nearest):
        def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
            streamed.extend((len(train.labels), len(held_out.labels)))
            return super().fit_stream(train, held_out, seed)

    probed = experiment(probes=(Streaming(),))
    whole = probe_experiment(probed, ToyTrunkModule(), ToyTrunkModule())
    monkeypatch.setattr(stored, "IN_MEMORY_BYTES", 0)
    found = probe_experiment(probed, ToyTrunkModule(), ToyTrunkModule(), cache_url="memory://streamed")
    assert (found, streamed) == (whole, [36, 4] * 3)
