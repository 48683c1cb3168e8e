"""A part of Fashion-MNIST (arXiv:1708.07747) that is included in the package, so that a first run needs no download."""

from functools import cache
from importlib import resources
from typing import Literal

import numpy as np

from aimcore import OpenSource, PixelStatistics, Source, component
from aimcore_sources.arrays import Bytes, OpenArrays
from aimcore_sources.fashion_mnist import CLASS_NAMES


@component("bundled_fashion_mnist", paper="arXiv:1708.07747")
class BundledFashionMNIST(Source):
    """12,000 training and 3,000 test images of clothes, 28 x 28 px: always the same ones, balanced over ten classes.

    They are the first 1,200 (300) images of each class in the original files. ``assets/make_slice.py`` made the
    file; its licence (MIT) is next to it.
    """

    split: Literal["train", "test"] = "train"
    """The split; each is a part of the original split of the same name."""

    @property
    def statistics(self) -> PixelStatistics:
        """The statistics of the training split."""
        return PixelStatistics(mean=(0.2865,) * 3, std=(0.3539,) * 3)

    def open(self) -> OpenSource:
        """Read the split into memory, once per process."""
        return OpenArrays(self, *_split(self.split), CLASS_NAMES)


@cache
def _split(name: str) -> tuple[Bytes, Bytes]:
    """Return images ``[n, H, W]`` and labels ``[n]``, read-only because every open source shares them."""
    path = resources.files("aimcore_sources") / "assets" / "fashion_mnist_slice.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    for array in found:
        array.setflags(write=False)
    return found
