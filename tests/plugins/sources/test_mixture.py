from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import pytest
import torch
from toy_plugins import ToySource

from aimcore import Data, InvalidValue, OpenSource, Sample, UnreadableSample
from aimcore.contracts.randomness import index_of
from aimcore.data import train_steps
from aimcore_sources import BundledEmoji, BundledFashionMNIST, Mixture
from aimcore_sources.mixture import OpenMixture, quotas

TABLE_2 = (30, 30, 9, 28, 3)


class Named(OpenSource):
    """Samples that are called after their source and number."""

    def __init__(self, name: str, size: int, class_names: Sequence[str] = ()) -> None:
        self.name, self.size = name, size
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> Sample:
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        return Sample(image=image, identifier=f"{self.name}{index}", captions={"alt": (self.name,)}, label=index)


def read(mixture: OpenMixture, numbers: range, seed: int = 0) -> list[str]:
    indices = mixture.indices_of(np.asarray(numbers), seed).tolist()
    return [mixture.read(index).identifier for index in indices]


def sources(*sizes: int) -> tuple[OpenSource, ...]:
    return tuple(Named("abcde"[number], size) for number, size in enumerate(sizes))


@pytest.fixture
def table_2() -> OpenMixture:
    return OpenMixture(sources(400, 50, 1000, 7, 20), TABLE_2)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ((0.30, 0.30, 0.09, 0.28, 0.03), TABLE_2), ((0.8, 0.2), (4, 1)), ((1, 1), (1, 1)), ((1 / 3, 2 / 3), (1, 2)),
        ((50, 25, 25), (2, 1, 1)), ((0.333, 0.667), (333, 667)), ((7,), (1,)),
    ],
)  # fmt: skip
def test_weights_become_the_smallest_whole_numbers(weights: tuple[float, ...], whole: tuple[int, ...]) -> None:
    assert quotas(weights) == whole


def test_what_the_sources_leave_out_is_counted_source_by_source() -> None:
    first, second, third = sources(2, 3, 4)
    first.left_out, third.left_out = {"broken links": 3}, {"broken links": 1, "hidden files and folders": 2}
    assert OpenMixture((first, second, third), (1, 1, 1)).left_out == {
        "broken links, in source 0": 3,
        "broken links, in source 2": 1,
        "hidden files and folders, in source 2": 2,
    }


def test_every_hundred_samples_hold_exactly_the_shares_of_table_2(table_2: OpenMixture) -> None:
    for first in (0, 100, 12_300):
        counts = Counter(name[2] for name in read(table_2, range(first, first + 100)))
        assert counts == dict(zip("abcde", TABLE_2, strict=True))


def test_each_source_goes_through_epochs_of_its_own(table_2: OpenMixture) -> None:
    names = read(table_2, range(2500))
    # 2500 numbers hold 700 of "d", 100 epochs of its 7, and 225 of "c", less than a quarter of its 1000.
    assert Counter(name for name in names if name[2] == "d") == {f"3/d{index}": 100 for index in range(7)}
    assert max(Counter(name for name in names if name[2] == "c").values()) == 1


def test_epochs_of_a_small_source_differ() -> None:
    mixture = OpenMixture(sources(1000, 30), (70, 30))
    first, second, third = ([name for name in read(mixture, range(at, at + 100)) if name[2] == "b"]
                            for at in (0, 100, 200))  # fmt: skip
    assert sorted(first) == sorted(second) == sorted(third)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3


def test_the_order_of_sources_is_drawn_anew_in_each_period() -> None:
    mixture = OpenMixture(sources(100, 100), (4, 1))
    drawn = ["".join(name[2] for name in read(mixture, range(first, first + 5))) for first in range(0, 250, 5)]
    assert set(drawn) == {"aaaab", "aaaba", "aabaa", "abaaa", "baaaa"}


def test_a_number_means_the_same_sample_wherever_one_starts(table_2: OpenMixture) -> None:
    through = read(table_2, range(700), seed=3)
    assert read(table_2, range(333, 700), seed=3) == through[333:]
    assert read(table_2, range(700), seed=4) != through


def test_two_equal_sources_are_not_read_in_step() -> None:
    mixture = OpenMixture((Named("a", 1000), Named("a", 1000)), (1, 1))
    names = read(mixture, range(400))
    one, other = ([name[2:] for name in names if name[0] == number] for number in "01")
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 10


def test_a_mixture_within_a_mixture_keeps_its_shares() -> None:
    inner = OpenMixture(sources(10, 1000), (1, 1))
    mixture = OpenMixture((inner, Named("z", 5)), (4, 1))
    counts = Counter(name.split("/")[-1][0] for name in read(mixture, range(500)))
    assert counts == {"a": 200, "b": 200, "z": 100}


def test_a_part_is_the_innermost_source_that_an_index_belongs_to() -> None:
    inner = OpenMixture(sources(10, 1000), (1, 1))
    mixture = OpenMixture((Named("z", 5), inner), (1, 4))
    assert [mixture.part_of(index) for index in (0, 4, 5, 14, 15, 1014)] == [
        range(5), range(5), range(5, 15), range(5, 15), range(15, 1015), range(15, 1015),
    ]  # fmt: skip
    assert sources(7)[0].part_of(3) == range(7)


def test_unreadable_samples_do_not_change_the_shares() -> None:
    class Half(Named):
        """Every second sample cannot be read."""

        def read(self, index: int) -> Sample:
            if index % 2:
                raise UnreadableSample(f"{self.name}{index}", "broken")
            return super().read(index)

    mixture = OpenMixture((Half("a", 40), Named("b", 100_000)), (1, 1))
    settings = Data(train=ToySource(), validation=ToySource(), batch_size=10, image_size=8)
    steps = train_steps(settings, mixture, patch_size=4, seed=1, num_steps=8)
    counts = Counter(name[0] for step in steps for batch in step for name in batch.extras["identifiers"])
    assert counts == {"0": 40, "1": 40}


def test_by_index_it_is_one_source_after_another(table_2: OpenMixture) -> None:
    assert len(table_2) == 1477
    assert [table_2.read(index).identifier for index in (0, 399, 400, 449, 450, 1476)] == [
        "0/a0", "0/a399", "1/b0", "1/b49", "2/c0", "4/e19",
    ]  # fmt: skip
    with pytest.raises(IndexError, match="there are 1477 samples, no number 1477"):
        table_2.read(1477)


def test_labels_are_given_where_all_sources_have_the_same_names() -> None:
    alike = OpenMixture((Named("a", 3, "xyz"), Named("b", 3, "xyz")), (1, 1))
    unlike = OpenMixture((Named("a", 3, "xyz"), Named("b", 3, "zyx")), (1, 1))
    assert (alike.label(4), alike.read(4).label, alike.class_names) == (1, 1, ("x", "y", "z"))
    assert (unlike.label(4), unlike.read(4).label, unlike.class_names) == (None, None, ())


def test_labels_that_are_not_given_are_counted() -> None:
    lost = "labels of samples, because the sources have different class names"
    alike = OpenMixture((Named("a", 3, "xyz"), Named("b", 4, "xyz")), (1, 1))
    unlike = OpenMixture((Named("a", 3, "xyz"), Named("b", 4, "zyx"), Named("c", 5)), (1, 1, 1))
    unlabelled = OpenMixture((Named("a", 3), Named("b", 4)), (1, 1))
    assert (alike.left_out, unlike.left_out, unlabelled.left_out) == ({}, {lost: 7}, {})


def test_training_reads_it_and_resumes_exactly() -> None:
    mixture = Mixture(sources=(BundledFashionMNIST(), BundledFashionMNIST(split="test")), weights=(0.8, 0.2))
    data = Data(train=mixture, validation=mixture, batch_size=10, image_size=8)
    opened = mixture.open()

    def names(first: int, count: int) -> Iterator[tuple[str, ...]]:
        steps = train_steps(data, opened, patch_size=4, seed=1, first_step=first, num_steps=count)
        return (batch.extras["identifiers"] for step in steps for batch in step)

    through = list(names(0, 6))
    assert [Counter(name[0] for name in batch) for batch in through] == [{"0": 8, "1": 2}] * 6
    assert list(names(4, 2)) == through[4:]


def test_a_source_alone_is_read_in_the_usual_order() -> None:
    source = Named("a", 50)
    assert source.indices_of(np.arange(120), 5).tolist() == index_of(np.arange(120), 50, 5).tolist()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), r"weights: must be one per source \(2\), got 1"),
        ((1.0, 0.0), "weights: must be positive"),
        ((1.0, float("inf")), r"weights\.1: must be a number, got inf"),
        ((1.0, 1e-6), "weights: must not differ by more than a factor of 10000"),
        ((0.123456, 0.54321), None),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: tuple[float, ...], message: str | None) -> None:
    if message is None:
        assert Mixture(sources=(ToySource(), ToySource()), weights=weights).weights == weights
        return
    with pytest.raises(InvalidValue, match=message):
        Mixture(sources=(ToySource(), ToySource()), weights=weights)


def test_weights_without_a_common_measure_are_refused() -> None:
    weights = (1.0, 1 / 9973, 1 / 9967, 1 / 9949)
    with pytest.raises(InvalidValue, match="weights: must be ratios of small whole numbers, such as percentages"):
        Mixture(sources=(ToySource(),) * 4, weights=weights)


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidValue, match="sources: name at least one source"):
        attrs.evolve(Mixture.examples()[0], sources=(), weights=())


def test_statistics_are_those_that_all_sources_share() -> None:
    slices = BundledFashionMNIST(split="train"), BundledFashionMNIST(split="test")
    assert Mixture(sources=slices, weights=(1, 1)).statistics == slices[0].statistics
    assert Mixture(sources=(slices[0], BundledEmoji()), weights=(1, 1)).statistics is None
