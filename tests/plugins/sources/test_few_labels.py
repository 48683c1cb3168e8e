"""A few labelled images of another source."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aimcore import InvalidValue, Source, component
from aimcore.evaluation.few_labels import drawn_subset
from aimcore_sources import BundledFashionMNIST, FewLabels
from aimcore_sources.arrays import OpenArrays
from aimcore_sources.few_labels import OpenSubset


@component("small")
class Small(Source):
    """Seven images whose only pixel is their number: four of class 0, three of class 1."""

    def open(self) -> OpenArrays:
        images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1)
        return OpenArrays(self, images, np.array([0, 1, 0, 1, 0, 1, 0], dtype=np.uint8), ("a", "b"))


@component("unlabelled")
class Unlabelled(Small):
    """The same images without labels."""

    def open(self) -> OpenArrays:
        found = super().open()
        found.label = lambda _: None  # type: ignore[method-assign,assignment]
        found.known_labels = lambda: None  # type: ignore[method-assign,assignment,return-value]
        return found


def identifiers(source: Source) -> list[str]:
    opened = source.open()
    return [opened.read(index).identifier for index in range(len(opened))]


def test_every_class_has_equally_many_images_and_smaller_subsets_are_contained() -> None:
    whole = BundledFashionMNIST(split="test")
    few, more = (FewLabels(source=whole, per_class=number) for number in (5, 20))
    known = more.open().known_labels()
    assert known is not None
    assert np.bincount(known).tolist() == [20] * 10
    assert set(identifiers(few)) < set(identifiers(more))
    assert more.open().class_names == whole.open().class_names
    assert more.statistics == whole.statistics


def test_another_draw_has_other_images() -> None:
    whole = BundledFashionMNIST(split="test")
    first, second = (set(identifiers(FewLabels(source=whole, per_class=5, draw=draw))) for draw in (0, 1))
    assert first != second


def test_the_images_are_those_that_probes_get_in_the_same_draw() -> None:
    opened = BundledFashionMNIST(split="test").open()
    labels = opened.known_labels()
    positions = drawn_subset(torch.from_numpy(labels), torch.arange(len(opened)), per_class=7, draw=2)
    found = identifiers(FewLabels(source=BundledFashionMNIST(split="test"), per_class=7, draw=2))
    assert found == [f"bundled_fashion_mnist/{position}" for position in positions.tolist()]


def test_samples_are_those_of_the_source() -> None:
    opened = OpenSubset(Small().open(), np.array([1, 4]))
    assert [opened.read(index).image[0].item() for index in (0, 1)] == [1, 4]
    assert [opened.label(index) for index in (0, 1)] == [1, 0]
    with pytest.raises(IndexError, match="there are 2 samples, no number 2"):
        opened.read(2)
    with pytest.raises(IndexError, match="no number -1"):
        opened.label(-1)


def test_labels_that_are_not_in_memory_are_read_and_samples_without_one_are_left_out() -> None:
    class Read(OpenArrays):
        def known_labels(self) -> None:  # type: ignore[override]
            return None

        def label(self, index: int) -> int | None:  # type: ignore[override]
            return None if index == 6 else super().label(index)

    @component("unknown")
    class Unknown(Small):
        def open(self) -> OpenArrays:
            found = super().open()
            return Read(self, found._images_nHW, found._labels_n, found.class_names)

    opened = FewLabels(source=Unknown(), per_class=3).open()
    assert opened.known_labels() is None
    assert sorted(opened.read(index).image[0].item() for index in range(6)) == [0, 1, 2, 3, 4, 5]


def test_a_class_with_fewer_images_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"must be at most 3, the number of images of class 1 \(b\); got 4"):
        FewLabels(source=Small(), per_class=4).open()


def test_a_source_without_labels_is_refused() -> None:
    with pytest.raises(InvalidValue, match="source: its images have no labels"):
        FewLabels(source=Unlabelled(), per_class=1).open()


@pytest.mark.parametrize("changes", [{"per_class": 0}, {"draw": -1}])
def test_numbers_out_of_bounds_are_refused(changes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue, match=next(iter(changes))):
        FewLabels(source=Small(), **changes)
