"""The built-in sources of images."""

from collections.abc import Sequence

from aimcore import Source, hookimpl
from aimcore_sources.benchmark_table import BENCHMARKS, BenchmarkName
from aimcore_sources.benchmarks import Benchmark, missing_files
from aimcore_sources.bundled import BundledFashionMNIST
from aimcore_sources.captioned_folder import CaptionedFolder
from aimcore_sources.emoji import BundledEmoji
from aimcore_sources.fashion_mnist import FashionMNIST
from aimcore_sources.few_labels import FewLabels
from aimcore_sources.flipped import Flipped
from aimcore_sources.image_folder import ImageFolder
from aimcore_sources.mixture import Mixture
from aimcore_sources.parquet import Parquet
from aimcore_sources.webdataset import WebDataset
from aimcore_sources.with_captions import WithCaptions
from aimcore_sources.zarr_images import ZarrImages
from aimcore_sources.zarr_writing import write_zarr

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkName",
    "BundledEmoji",
    "BundledFashionMNIST",
    "CaptionedFolder",
    "FashionMNIST",
    "FewLabels",
    "Flipped",
    "ImageFolder",
    "Mixture",
    "Parquet",
    "WebDataset",
    "WithCaptions",
    "ZarrImages",
    "missing_files",
    "write_zarr",
]


@hookimpl
def sources() -> Sequence[type[Source]]:
    """Supply the built-in sources."""
    return [
        Benchmark, BundledEmoji, BundledFashionMNIST, CaptionedFolder, FashionMNIST, FewLabels, Flipped, ImageFolder,
        Mixture, Parquet, WebDataset, WithCaptions, ZarrImages,
    ]  # fmt: skip
