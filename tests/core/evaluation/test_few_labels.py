"""Probes that are fitted with few labels."""

from __future__ import annotations

import attrs
import pytest
import torch
from core.evaluation.toys import Nearest, Shades, ToyTrunkModule, experiment

from aimcore import InvalidValue, component
from aimcore.evaluation import Outcome, check_probes, probe_experiment
from aimcore.evaluation.few_labels import drawn_subset, split_subset
from aimcore.running.measurements import probe_summaries
from aimcore.running.summary import FewLabelsSummary

LABELS = torch.tensor([0, 1, 2] * 20)
NUMBERS = torch.arange(60)


@component("all_of_them")
class AllOfThem(Nearest):
    """Holds nothing out."""

    holds_out = False


def few(*numbers: int, draws: int = 2, **changes):  # type: ignore[no-untyped-def]
    return attrs.evolve(experiment(**changes), probe_labels_per_class=numbers, probe_label_draws=draws)


def test_a_subset_has_equally_many_images_of_each_class_and_contains_the_smaller_ones() -> None:
    small, large = (drawn_subset(LABELS, NUMBERS, number, draw=0) for number in (4, 10))
    assert LABELS[large].bincount().tolist() == [10, 10, 10]
    assert set(small.tolist()) < set(large.tolist())


def test_draws_differ_and_depend_on_the_numbers_of_images_and_not_on_their_positions() -> None:
    first, second = (drawn_subset(LABELS, NUMBERS, 5, draw) for draw in (0, 1))
    assert first.tolist() != second.tolist()
    flipped = drawn_subset(LABELS.flip(0), NUMBERS.flip(0), 5, 0)
    assert sorted(NUMBERS.flip(0)[flipped].tolist()) == first.tolist()


def test_a_fifth_of_each_class_of_a_subset_is_held_out() -> None:
    kept, held_out = split_subset(LABELS, NUMBERS, drawn_subset(LABELS, NUMBERS, 10, 0))
    assert LABELS[kept].bincount().tolist() == [8, 8, 8]
    assert LABELS[held_out].bincount().tolist() == [2, 2, 2]


def test_each_probe_is_fitted_again_for_every_number_and_draw_on_every_feature_source() -> None:
    Nearest.fits.clear()
    score = probe_experiment(few(5, 10), ToyTrunkModule(), ToyTrunkModule(scale=0.0))["nearest"]
    # For the trained trunk, the untrained one and raw pixels: all 40 images, then 10 and 20 of them, twice each.
    assert Nearest.fits == [(36, 4), (8, 2), (8, 2), (16, 4), (16, 4)] * 3
    # The untrained toy puts out zeros, so its nearest centre is class 0: half of the test images.
    assert score.by_labels == {
        "trained": {5: (1.0, 1.0), 10: (1.0, 1.0)},
        "untrained": {5: (0.5, 0.5), 10: (0.5, 0.5)},
        "raw_pixels": {5: (1.0, 1.0), 10: (1.0, 1.0)},
    }
    assert "5, 10 images per class, in 2 draws" in score.card["few_labels"]


def test_a_probe_that_holds_nothing_out_is_fitted_on_all_of_the_few_images() -> None:
    Nearest.fits.clear()
    probe_experiment(few(5, draws=1, probes=(AllOfThem(),)), ToyTrunkModule(), ToyTrunkModule())
    assert Nearest.fits == [(40, 0), (10, 0)] * 3


def test_a_study_does_not_share_raw_pixels_between_experiments_with_other_numbers_of_labels() -> None:
    cache: dict[str, Outcome] = {}
    for numbers in ((5,), (4,)):
        found = probe_experiment(few(*numbers), ToyTrunkModule(), ToyTrunkModule(), raw_pixels=cache)["nearest"]
        assert set(found.by_labels["raw_pixels"]) == set(numbers)


def test_a_class_with_fewer_images_is_refused() -> None:
    with pytest.raises(InvalidValue, match="asks for 21 images per class, and of class 0 there are 20"):
        drawn_subset(LABELS, NUMBERS, 21, 0)


def test_a_class_with_fewer_images_is_refused_before_training_if_labels_are_known() -> None:
    class Known(Shades):
        def open(self):  # type: ignore[no-untyped-def]
            opened = super().open()
            opened.known_labels = lambda: (torch.arange(len(opened)) % 2).numpy()  # type: ignore[method-assign]
            return opened

    check_probes(few(20, train=Known()))
    with pytest.raises(InvalidValue, match=r"probe 'nearest'.*21 images per class, and of class 0 .dark. there are 20"):
        check_probes(few(21, train=Known()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_labels_per_class": (10, 1)}, "probe_labels_per_class.1: must be at least 2"),
        ({"probe_labels_per_class": (5, 5)}, "probe_labels_per_class: must be distinct"),
        ({"probe_label_draws": 0}, "probe_label_draws: must be at least 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changes, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue, match=message):
        attrs.evolve(experiment(), **changes)


def test_the_summary_records_every_draw() -> None:
    scores = probe_experiment(few(5), ToyTrunkModule(), ToyTrunkModule(scale=0.0))
    expected = FewLabelsSummary(per_class=5, trained=(1.0, 1.0), untrained=(0.5, 0.5), raw_pixels=(1.0, 1.0))
    assert probe_summaries(scores)["nearest"].few_labels == (expected,)
