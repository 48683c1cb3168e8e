"""AIM's 15 benchmarks, on small files in the layouts of their publishers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from benchmark_files import WRITERS
from torchvision import datasets

from aimcore.contracts.errors import AimcoreError, DataNotFound
from aimcore.testing.conformance import checks_for
from aimcore_sources import BENCHMARKS, Benchmark, BenchmarkName, missing_files

NAMES = get_args(BenchmarkName)
TABLE_9 = {
    "imagenet": (1_281_167, 50_000, 1000), "inat18": (437_513, 24_426, 8142), "cifar10": (50_000, 10_000, 10),
    "cifar100": (50_000, 10_000, 100), "food101": (75_750, 25_250, 101), "dtd": (3_760, 1_880, 47),
    "pets": (3_680, 3_669, 37), "cars": (8_144, 8_041, 196), "iwildcam": (129_809, 14_961, 182),
    "camelyon17": (302_436, 34_904, 2), "pcam": (262_144, 32_768, 2), "rxrx1": (40_612, 9_854, 1139),
    "eurosat": (16_200, 5_400, 10), "fmow": (76_863, 19_915, 62), "infographic": (36_023, 15_582, 345),
}  # fmt: skip
# Red of each image (its number, where the splits are made from one list), and its label: first training, then test.
IMAGES: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
    "imagenet": ([(0, 0), (1, 0), (2, 1)], [(3, 0), (4, 1)]),
    "inat18": ([(0, 0), (1, 1), (2, 0)], [(0, 1), (1, 0)]),
    "cifar10": ([(n, label) for n in range(5) for label in (1, 0)], [(5, 1), (5, 0)]),
    "cifar100": ([(7, 0), (7, 1), (7, 1)], [(7, 0), (7, 1), (7, 1)]),
    "food101": ([(3, 1), (4, 1), (1, 0)], [(2, 0), (5, 1)]),
    "dtd": ([(0, 1), (0, 0), (1, 1), (1, 0)], [(2, 1), (2, 0)]),
    "pets": ([(1, 1), (1, 0), (2, 0)], [(3, 0), (2, 1)]),
    "cars": ([(0, 1), (1, 0), (2, 1)], [(0, 0), (1, 1)]),
    "iwildcam": ([(0, 0), (3, 1), (6, 0)], [(2, 0), (5, 1)]),
    "camelyon17": ([(0, 0), (5, 1), (6, 0)], [(2, 0), (3, 1)]),
    "pcam": ([(0, 0), (0, 1), (0, 1), (0, 0)], [(0, 0), (0, 1), (0, 1), (0, 0)]),
    "rxrx1": ([(0, 0), (5, 1)], [(2, 0), (3, 1)]),
    "eurosat": ([(1, 1), (1, 0), (2, 1)], [(2, 0), (3, 1)]),
    "fmow": ([(1, 1), (7, 0)], [(4, 1), (5, 0)]),
    "infographic": ([(1, 1), (2, 0), (3, 0)], [(4, 1), (5, 0)]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    for write in WRITERS.values():
        write(root)
    return root


def small(dataset: Any, root: Path, split: Any = "train") -> Benchmark:
    return Benchmark(dataset=dataset, root=str(root), split=split, sizes="any")


def test_there_are_those_of_table_9_with_its_sizes() -> None:
    found = {name: (facts.num_train, facts.num_test, facts.num_classes) for name, facts in BENCHMARKS.items()}
    assert found == TABLE_9
    assert list(BENCHMARKS) == list(NAMES)


@pytest.mark.parametrize("dataset", NAMES)
def test_each_split_has_its_images_and_labels(dataset: str, root: Path) -> None:
    assert missing_files(dataset, str(root)) == ()  # type: ignore[arg-type]
    for split, expected in zip(("train", "test"), IMAGES[dataset], strict=True):
        opened = small(dataset, root, split).open()
        samples = [opened.read(index) for index in range(len(opened))]
        # JPEG may change the red by a little.
        found = [(round(float(one.image[0].float().mean())), one.label) for one in samples]
        assert [label for _, label in found] == [label for _, label in expected], split
        assert all(abs(red - wanted) <= 1 for (red, _), (wanted, _) in zip(found, expected, strict=True)), split
        assert len(opened.class_names) == 2


@pytest.mark.parametrize("dataset", NAMES)
def test_they_pass_the_checks_of_sources(dataset: str, root: Path) -> None:
    source = small(dataset, root)
    for check in checks_for(source):
        check(source)


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        ("inat18", ("Ailuropoda", "Quercus robur")), ("pets", ("Abyssinian", "great_pyrenees")),
        ("cars", ("Acura RL", "Audi S4")), ("iwildcam", ("empty", "lion")), ("fmow", ("dam", "zoo")),
        ("cifar100", ("apple", "bear")), ("infographic", ("axe", "zebra")), ("dtd", ("banded", "zigzagged")),
    ],
)  # fmt: skip
def test_classes_have_the_names_of_their_publishers(dataset: str, classes: tuple[str, ...], root: Path) -> None:
    assert small(dataset, root).open().class_names == classes


def test_pixels_of_arrays_are_at_their_places(root: Path) -> None:
    cifar = small("cifar10", root).open().read(3).image  # [3, 32, 32]
    assert cifar[:, 0, 1].tolist() == [1, 200, 0]
    assert cifar[:, 1, 0].tolist() == [1, 0, 0]
    assert small("pcam", root).open().read(2).image[:, 0, 1].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("dataset", "of_torchvision"),
    [
        ("food101", lambda root: datasets.Food101(root, "train")),
        ("pets", lambda root: datasets.OxfordIIITPet(root, "trainval")),
        ("cars", lambda root: datasets.StanfordCars(root, "train")),
        ("pcam", lambda root: datasets.PCAM(root, "train")),
    ],
)
def test_labels_are_those_of_torchvisions_loader(dataset: str, of_torchvision: Any, root: Path) -> None:
    opened, other = small(dataset, root).open(), of_torchvision(str(root))
    assert [opened.label(index) for index in range(len(opened))] == [
        int(other[index][1]) for index in range(len(other))
    ]


def test_training_images_of_textures_are_those_of_two_of_torchvisions_splits(root: Path) -> None:
    opened, splits = small("dtd", root).open(), [datasets.DTD(str(root), split) for split in ("train", "val")]
    assert opened.known_labels().tolist() == [label for one in splits for _, label in one]  # type: ignore[union-attr]


def test_other_sizes_than_those_of_table_9_are_an_error(root: Path) -> None:
    with pytest.raises(DataNotFound, match=r"3 train images of 2 classes, and Table 9 .* has 75,750 of 101") as caught:
        Benchmark(dataset="food101", root=str(root)).open()
    assert "sizes='any'" in str(caught.value)


@pytest.mark.parametrize("dataset", NAMES)
def test_what_is_missing_is_named_with_its_folder_and_where_to_get_it(dataset: Any, tmp_path: Path) -> None:
    facts = BENCHMARKS[dataset]
    with pytest.raises(DataNotFound) as caught:
        Benchmark(dataset=dataset, root=str(tmp_path)).open()
    message = str(caught.value)
    assert facts.needs[0] in message
    assert f"Its folder is {facts.folder} below the root {tmp_path}; get it from {facts.from_where}" in message


@pytest.mark.parametrize(
    ("dataset", "file", "content", "message"),
    [
        ("food101", "food-101/meta/train.json", "[1, ", "is not JSON"),
        ("inat18", "inat2018/train2018.json", "{}", r"its annotations cannot be read \(KeyError: 'categories'"),
        ("pets", "oxford-iiit-pet/annotations/trainval.txt", "cat_1 one 1 1", "its annotations cannot be read"),
        ("rxrx1", "rxrx1_v1.0/metadata.csv", "a,b\n1,2\n", r"its annotations cannot be read \(KeyError"),
        ("cars", "stanford_cars/devkit/cars_meta.mat", "none", "is no MATLAB file, or a damaged one"),
        ("cifar100", "cifar-100-binary/train.bin", "short", "5 bytes, not a multiple of 3074: it was cut short"),
        ("pcam", "pcam/camelyonpatch_level_2_split_train_y.h5", "none", "cannot read 'y' in"),
        ("eurosat", "eurosat/eurosat-train.txt", "", "has no train image"),
    ],
)
def test_damaged_annotations_are_an_error_with_its_reason(
    dataset: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    WRITERS[dataset](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(AimcoreError, match=message):
        small(dataset, tmp_path).open()
