"""The sizes of AIM's 15 benchmarks (arXiv:2401.08541, Table 9), their folders, and where they can be obtained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from aimcore import OpenSource
from aimcore_sources import benchmark_arrays as arrays
from aimcore_sources import benchmark_listing as listing
from aimcore_sources.benchmark_listing import Folder, ListFiles, Split

BenchmarkName = Literal[
    "imagenet", "inat18", "cifar10", "cifar100", "food101", "dtd", "pets", "cars", "iwildcam", "camelyon17", "pcam",
    "rxrx1", "eurosat", "fmow", "infographic",
]  # fmt: skip
OpenArrays = Callable[[Folder, Split, str], OpenSource]


@attrs.frozen
class BenchmarkFacts:
    """What Table 9 says of a benchmark, and how it is stored."""

    num_train: int
    num_test: int
    num_classes: int
    folder: str
    """Its folder below the root."""
    needs: tuple[str, ...]
    """Files and folders in it that are looked for."""
    from_where: str
    """Where it can be obtained. Nothing is downloaded."""
    list_files: ListFiles | None = None
    open_arrays: OpenArrays | None = None

    def size(self, split: Split) -> int:
        """Number of images of a split."""
        return self.num_train if split == "train" else self.num_test


_WILDS = (
    "the WILDS benchmark (https://wilds.stanford.edu), in the version of the folder's name; 'test' is its "
    "out-of-distribution validation split"
)
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html, the binary version"
_CARS = (
    "devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat", "cars_train", "cars_test",
)  # fmt: skip

BENCHMARKS: Mapping[BenchmarkName, BenchmarkFacts] = MappingProxyType(
    {
        "imagenet": BenchmarkFacts(
            1_281_167, 50_000, 1000, "imagenet", ("train", "val"),
            "https://image-net.org, ILSVRC 2012: a folder per class in train/ and in val/", listing.list_imagenet,
        ),
        "inat18": BenchmarkFacts(
            437_513, 24_426, 8142, "inat2018", ("train2018.json", "val2018.json", "train_val2018"),
            "https://github.com/visipedia/inat_comp/tree/master/2018", listing.list_inat18,
        ),
        "cifar10": BenchmarkFacts(
            50_000, 10_000, 10, "cifar-10-batches-bin", ("batches.meta.txt", "data_batch_1.bin", "test_batch.bin"),
            _CIFAR, open_arrays=arrays.open_cifar10,
        ),
        "cifar100": BenchmarkFacts(
            50_000, 10_000, 100, "cifar-100-binary", ("fine_label_names.txt", "train.bin", "test.bin"),
            _CIFAR, open_arrays=arrays.open_cifar100,
        ),
        "food101": BenchmarkFacts(
            75_750, 25_250, 101, "food-101", ("meta/train.json", "meta/test.json", "images"),
            "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101", listing.list_food101,
        ),
        "dtd": BenchmarkFacts(
            3_760, 1_880, 47, "dtd/dtd", ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt", "images"),
            "https://www.robots.ox.ac.uk/~vgg/data/dtd", listing.list_dtd,
        ),
        "pets": BenchmarkFacts(
            3_680, 3_669, 37, "oxford-iiit-pet", ("annotations/trainval.txt", "annotations/test.txt", "images"),
            "https://www.robots.ox.ac.uk/~vgg/data/pets", listing.list_pets,
        ),
        "cars": BenchmarkFacts(
            8_144, 8_041, 196, "stanford_cars", _CARS,
            "a mirror of https://ai.stanford.edu/~jkrause/cars/car_dataset.html, in the layout of torchvision's "
            "StanfordCars", listing.list_cars,
        ),
        "iwildcam": BenchmarkFacts(
            129_809, 14_961, 182, "iwildcam_v2.0", ("metadata.csv", "categories.csv", "train"),
            _WILDS, listing.list_iwildcam,
        ),
        "camelyon17": BenchmarkFacts(
            302_436, 34_904, 2, "camelyon17_v1.0", ("metadata.csv", "patches"), _WILDS, listing.list_camelyon17,
        ),
        "pcam": BenchmarkFacts(
            262_144, 32_768, 2, "pcam",
            tuple(f"camelyonpatch_level_2_split_{split}_{kind}.h5" for split in ("train", "test") for kind in "xy"),
            "https://github.com/basveeling/pcam, unpacked", open_arrays=arrays.open_pcam,
        ),
        "rxrx1": BenchmarkFacts(
            40_612, 9_854, 1139, "rxrx1_v1.0", ("metadata.csv", "images"), _WILDS, listing.list_rxrx1,
        ),
        "eurosat": BenchmarkFacts(
            16_200, 5_400, 10, "eurosat", ("eurosat-train.txt", "eurosat-test.txt", "2750"),
            "https://github.com/phelber/EuroSAT (RGB), with the lists of images in each split of TorchGeo's EuroSAT; "
            "their sizes are those of Table 9, but which split the paper took is not published: an ASSUMPTION",
            listing.list_eurosat,
        ),
        "fmow": BenchmarkFacts(
            76_863, 19_915, 62, "fmow_v1.1", ("rgb_metadata.csv", "images"), _WILDS, listing.list_fmow,
        ),
        "infographic": BenchmarkFacts(
            36_023, 15_582, 345, "domainnet", ("infograph_train.txt", "infograph_test.txt", "infograph"),
            "https://ai.bu.edu/M3SDA, the domain infograph of DomainNet", listing.list_infographic,
        ),
    }
)  # fmt: skip
"""The benchmarks in the order of Table 6. Their sizes are those of Table 9."""
