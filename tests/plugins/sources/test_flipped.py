"""Images upside down."""

from __future__ import annotations

import numpy as np
import torch

from aimcore import Source, component
from aimcore_sources import BundledFashionMNIST, Flipped, Mixture
from aimcore_sources.arrays import OpenArrays


@component("rows")
class Rows(Source):
    """One image of three rows."""

    def open(self) -> OpenArrays:
        image = np.array([[[1, 2], [3, 4], [5, 6]]], dtype=np.uint8)
        return OpenArrays(self, image, np.array([0], dtype=np.uint8), ("a",))


def test_rows_are_in_reverse_order_and_columns_stay() -> None:
    sample = Flipped(source=Rows()).open().read(0)
    assert sample.image[0].tolist() == [[5, 6], [3, 4], [1, 2]]
    assert sample.label == 0


def test_everything_but_the_image_is_that_of_the_source() -> None:
    test = BundledFashionMNIST(split="test")
    mixture = Mixture(sources=(test, BundledFashionMNIST(split="train")), weights=(1.0, 3.0))
    own, flipped = mixture.open(), Flipped(source=mixture).open()
    numbers = np.arange(40)
    assert np.array_equal(flipped.indices_of(numbers, 3), own.indices_of(numbers, 3))
    assert flipped.part_of(0) == own.part_of(0)
    assert flipped.class_names == own.class_names
    assert Flipped(source=test).statistics == test.statistics
    again = Flipped(source=Flipped(source=test)).open().read(5)
    assert torch.equal(again.image, test.open().read(5).image)
