"""The 15 benchmarks of AIM (arXiv:2401.08541, Table 9), from copies that the user has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from aimcore import OpenSource, Problem, Sample, Source, component
from aimcore.contracts.errors import DataNotFound
from aimcore.io.image_files import MAX_PIXELS, decode
from aimcore.io.locations import location_problems
from aimcore_sources.benchmark_listing import Folder, Listing, Split
from aimcore_sources.benchmark_table import BENCHMARKS, BenchmarkFacts, BenchmarkName
from aimcore_sources.decoding import connect, pixel_problems, read_file


class OtherBenchmark(DataNotFound):
    """A benchmark does not have the images or classes that Table 9 says: it is incomplete, or another version."""


@component("benchmark", paper="arXiv:2401.08541, Table 9")
class Benchmark(Source):
    """One of the 15 benchmarks on which AIM probes frozen trunks, from the user's copy. Nothing is downloaded.

    Each is a folder below ``root`` with the name and layout of its publishers, or of torchvision and WILDS where they
    define one. ``split="test"`` means the test images of Table 9: validation images of ImageNet and iNaturalist, and
    the out-of-distribution validation splits of the WILDS sets.

    The numbers of images and classes are compared with Table 9, and other numbers are an error.
    """

    dataset: BenchmarkName
    root: str
    """The folder that contains the folders of the benchmarks; a path or URL."""
    split: Split = "train"
    sizes: Literal["paper", "any"] = "paper"
    """Whether the numbers of Table 9 are required. ``"any"`` accepts a part, whose scores cannot be compared."""
    max_pixels: int = MAX_PIXELS
    """An image with more pixels is unreadable: it is treated as a decompression bomb."""

    def problems(self) -> Iterable[Problem]:
        """Yield refused protocols, and a limit on pixels that Pillow does not allow."""
        yield from pixel_problems(self.max_pixels)
        yield from location_problems("root", self.root)

    @property
    def url(self) -> str:
        """The folder of the benchmark."""
        return f"{self.root.rstrip('/')}/{BENCHMARKS[self.dataset].folder}"

    def open(self) -> OpenSource:
        """List the images.

        Raises:
            DataNotFound: files are missing or damaged; the message names the folder, and where to get the benchmark.
            OtherBenchmark: the numbers of images or classes are not those of Table 9.
        """
        facts = BENCHMARKS[self.dataset]
        missing = missing_files(self.dataset, self.root)
        if missing:
            raise DataNotFound(self._said(f"{self.url} lacks {', '.join(missing)}"))
        try:
            opened = self._opened(facts)
        except DataNotFound as cause:
            raise DataNotFound(self._said(str(cause))) from cause
        except (LookupError, ValueError, TypeError) as cause:
            text = f"its annotations cannot be read ({type(cause).__name__}: {cause})"
            raise DataNotFound(self._said(text)) from cause
        self._require_sizes(opened, facts)
        return opened

    def _opened(self, facts: BenchmarkFacts) -> OpenSource:
        folder = Folder(self.url)
        if facts.open_arrays is not None:
            return facts.open_arrays(folder, self.split, self.dataset)
        assert facts.list_files is not None
        return OpenListing(self.url, facts.list_files(folder, self.split), self.max_pixels)

    def _require_sizes(self, opened: OpenSource, facts: BenchmarkFacts) -> None:
        found, wanted = (len(opened), len(opened.class_names)), (facts.size(self.split), facts.num_classes)
        if not len(opened):
            raise DataNotFound(self._said(f"{self.url} has no {self.split} image"))
        if self.sizes == "paper" and found != wanted:
            raise OtherBenchmark(
                self._said(
                    f"{self.url} has {found[0]:,} {self.split} images of {found[1]:,} classes, and Table 9 of "
                    f"arXiv:2401.08541 has {wanted[0]:,} of {wanted[1]:,}: it is incomplete, or another version "
                    "(sizes='any' reads it; its scores cannot be compared)"
                )
            )

    def _said(self, text: str) -> str:
        facts = BENCHMARKS[self.dataset]
        place = f"Its folder is {facts.folder} below the root {self.root}; get it from {facts.from_where}"
        return f"Benchmark {self.dataset!r}: {text}. {place}"

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the files are the user's."""
        return ()


def missing_files(dataset: BenchmarkName, root: str) -> tuple[str, ...]:
    """Return the files and folders of a benchmark that ``root`` lacks; empty if it can be opened."""
    facts = BENCHMARKS[dataset]
    filesystem, folder = connect(f"{root.rstrip('/')}/{facts.folder}", "Benchmark")
    return tuple(name for name in facts.needs if not filesystem.exists(f"{folder.rstrip('/')}/{name}"))


class OpenListing(OpenSource):
    """Listed images of a folder. It has no open connection, so that it can be sent to data workers."""

    def __init__(self, url: str, listing: Listing, max_pixels: int) -> None:
        self._url, self._listing, self._max_pixels = url, listing, max_pixels
        self.class_names = listing.class_names

    def __len__(self) -> int:
        return len(self._listing.files)

    def read(self, index: int) -> Sample:
        """Return the image as RGB. Its identifier is its path in the folder.

        Raises:
            UnreadableSample: the file is missing, truncated, not an image, or too large.
        """
        name = self._listing.files[index]
        image = decode(read_file(self._url, name), name, self._max_pixels)
        return Sample(image=image, identifier=name, label=self.label(index))

    def label(self, index: int) -> int:
        """The label, from the annotations."""
        return int(self._listing.labels_n[index])

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return all labels."""
        return self._listing.labels_n
