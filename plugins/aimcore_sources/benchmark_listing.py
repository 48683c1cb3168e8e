"""Lists of the images of benchmarks that are files: their paths, labels and class names.

Each function takes the folder of a data set and a split, ``"train"`` or ``"test"`` of arXiv:2401.08541, Table 9.
torchvision has loaders of some of these sets. They give labels with decoded images only, and CIFAR's unpickles files;
so the annotations are read here, and tests compare the results with torchvision's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import DataNotFound
from aimcore.io.text_files import DamagedText, decode_text, parse_json
from aimcore_sources.decoding import connect
from aimcore_sources.listing import IMAGE_SUFFIXES, listing_of

Split = Literal["train", "test"]


class Listing(NamedTuple):
    """The images of a split."""

    files: tuple[str, ...]
    """Paths relative to the folder of the data set."""
    labels_n: npt.NDArray[np.int64]
    class_names: tuple[str, ...]


class Folder:
    """The folder of a data set, on disk or at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def content(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataNotFound: it cannot be read.
        """
        filesystem, root = connect(self.url, "Benchmark")
        try:
            found: bytes = filesystem.cat_file(f"{root.rstrip('/')}/{name}")
        except (OSError, ValueError) as cause:
            raise DataNotFound(f"cannot read {self.url}/{name} ({type(cause).__name__}: {cause})") from cause
        return found

    def text(self, name: str) -> str:
        """Return the text of a file.

        Raises:
            DataNotFound: it cannot be read, or is not text.
        """
        try:
            return decode_text(self.content(name), name)
        except DamagedText as cause:
            raise DataNotFound(f"{self.url}: {cause}") from cause

    def json(self, name: str) -> Any:
        """Return the values of a JSON file.

        Raises:
            DataNotFound: it cannot be read, or is not JSON.
        """
        try:
            return parse_json(self.text(name), name)
        except (DamagedText, ValueError) as cause:
            raise DataNotFound(f"{self.url}/{name} is not JSON: {cause}") from cause

    def rows(self, name: str) -> Iterator[dict[str, str]]:
        """Yield the rows of a CSV file with a header."""
        yield from csv.DictReader(io.StringIO(self.text(name)))

    def words(self, name: str) -> list[list[str]]:
        """Return the words of each line of a text file that is not empty."""
        return [line.split() for line in self.text(name).splitlines() if line.strip()]


ListFiles = Callable[[Folder, Split], Listing]


def _listing(pairs: Iterable[tuple[str, int]], class_names: Sequence[str]) -> Listing:
    files, labels = tuple(zip(*pairs, strict=True)) or ((), ())
    return Listing(files, np.array(labels, dtype=np.int64), tuple(class_names))


def _by_class(pairs: Sequence[tuple[str, str]], class_names: Sequence[str]) -> Listing:
    """Return the listing of files with their class names."""
    label_of = {name: label for label, name in enumerate(class_names)}
    return _listing(((file, label_of[name]) for file, name in pairs), class_names)


def list_imagenet(folder: Folder, split: Split) -> Listing:
    """``train/`` and ``val/`` with a folder per class."""
    below = {"train": "train", "test": "val"}[split]
    names = listing_of(f"{folder.url}/{below}", "Benchmark").with_suffix(IMAGE_SUFFIXES)
    pairs = [(f"{below}/{name}", name.partition("/")[0]) for name in names if "/" in name]
    return _by_class(pairs, sorted({kind for _, kind in pairs}))


def list_inat18(folder: Folder, split: Split) -> Listing:
    """INaturalist 2018: ``train2018.json`` or ``val2018.json``, which name the images and their categories."""
    content: Mapping[str, Any] = folder.json({"train": "train2018.json", "test": "val2018.json"}[split])
    categories = sorted(content["categories"], key=lambda one: int(one["id"]))
    label_of = {one["id"]: label for label, one in enumerate(categories)}
    category_of = {one["image_id"]: one["category_id"] for one in content["annotations"]}
    pairs = ((str(image["file_name"]), label_of[category_of[image["id"]]]) for image in content["images"])
    return _listing(pairs, [str(one["name"]) for one in categories])


def list_food101(folder: Folder, split: Split) -> Listing:
    """``meta/train.json`` or ``meta/test.json``: names of images by class."""
    content: Mapping[str, Sequence[str]] = folder.json(f"meta/{split}.json")
    pairs = [(f"images/{name}.jpg", kind) for kind, names in content.items() for name in names]
    return _by_class(pairs, sorted(content))


def list_dtd(folder: Folder, split: Split) -> Listing:
    """Describable textures, the first of the ten partitions; training and validation images together are "train"."""
    lists = {"train": ("train1.txt", "val1.txt"), "test": ("test1.txt",)}[split]
    names = [words[0] for name in lists for words in folder.words(f"labels/{name}")]
    pairs = [(f"images/{name}", name.partition("/")[0]) for name in names]
    return _by_class(pairs, sorted({kind for _, kind in pairs}))


def list_pets(folder: Folder, split: Split) -> Listing:
    """Oxford-IIIT pets: ``annotations/trainval.txt`` or ``test.txt``, with a name and a class from 1 in each line."""
    lines = folder.words(f"annotations/{'trainval' if split == 'train' else 'test'}.txt")
    names = {int(words[1]) - 1: words[0].rpartition("_")[0] for words in lines}
    pairs = ((f"images/{words[0]}.jpg", int(words[1]) - 1) for words in lines)
    return _listing(pairs, [names[label] for label in sorted(names)])


def list_cars(folder: Folder, split: Split) -> Listing:
    """Stanford cars: annotations and class names in MATLAB files, whose classes count from 1."""
    annotations = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}[split]
    names = [str(name) for name in np.atleast_1d(_matlab(folder, "devkit/cars_meta.mat")["class_names"])]
    rows = np.atleast_1d(_matlab(folder, annotations)["annotations"])
    pairs = ((f"cars_{split}/{row['fname']}", int(row["class"]) - 1) for row in rows)
    return _listing(pairs, names)


def _matlab(folder: Folder, name: str) -> Mapping[str, Any]:
    """Return the variables of a MATLAB file. scipy is loaded for these files and for reports only."""
    from scipy.io.matlab import MatReadError, loadmat

    try:
        content: Mapping[str, Any] = loadmat(io.BytesIO(folder.content(name)), squeeze_me=True)
    except (MatReadError, NotImplementedError) as cause:
        raise DataNotFound(f"{folder.url}/{name} is no MATLAB file, or a damaged one: {cause}") from cause
    return content


def list_eurosat(folder: Folder, split: Split) -> Listing:
    """EuroSAT (RGB): ``2750/CLASS/CLASS_NUMBER.jpg``, and lists of the names in each split."""
    names = [words[0] for words in folder.words(f"eurosat-{split}.txt")]
    stems = [name.rpartition(".")[0] for name in names]
    pairs = [(f"2750/{stem.rpartition('_')[0]}/{stem}.jpg", stem.rpartition("_")[0]) for stem in stems]
    return _by_class(pairs, sorted({kind for _, kind in pairs}))


def list_infographic(folder: Folder, split: Split) -> Listing:
    """The infographic domain of DomainNet: ``infograph_train.txt`` or ``infograph_test.txt``, with paths and labels."""
    lines = folder.words(f"infograph_{split}.txt")
    names = {int(words[1]): words[0].split("/")[-2] for words in lines}
    return _listing(((words[0], int(words[1])) for words in lines), [names[label] for label in sorted(names)])


def list_iwildcam(folder: Folder, split: Split) -> Listing:
    """WILDS iWildCam 2.0: ``metadata.csv``; "test" is the out-of-distribution validation split."""
    wanted = {"train": "train", "test": "val"}[split]
    names = {int(row["y"]): row["name"] for row in folder.rows("categories.csv") if int(row["y"]) < _UNUSED_CATEGORY}
    rows = (row for row in folder.rows("metadata.csv") if row["split"] == wanted)
    pairs = ((f"train/{row['filename']}", int(row["y"])) for row in rows)
    return _listing(pairs, [names[label] for label in sorted(names)])


_UNUSED_CATEGORY = 99_999
"""WILDS gives this label to categories of which it has no image."""
_CAMELYON_VALIDATION, _CAMELYON_TEST = "1", "2"
"""Hospitals that WILDS holds out."""


def list_camelyon17(folder: Folder, split: Split) -> Listing:
    """WILDS Camelyon17: ``metadata.csv``; "test" is the out-of-distribution validation split, one hospital."""

    def is_wanted(row: Mapping[str, str]) -> bool:
        if split == "test":
            return row["center"] == _CAMELYON_VALIDATION
        return row["split"] == "0" and row["center"] not in (_CAMELYON_VALIDATION, _CAMELYON_TEST)

    pairs = ((_camelyon_file(row), int(row["tumor"])) for row in folder.rows("metadata.csv") if is_wanted(row))
    return _listing(pairs, ("normal", "tumor"))


def _camelyon_file(row: Mapping[str, str]) -> str:
    node = f"patient_{row['patient']}_node_{row['node']}"
    return f"patches/{node}/patch_{node}_x_{row['x_coord']}_y_{row['y_coord']}.png"


def list_rxrx1(folder: Folder, split: Split) -> Listing:
    """WILDS RxRx1: ``metadata.csv``; training reads site 1 only, "test" is the out-of-distribution validation split."""

    def is_wanted(row: Mapping[str, str]) -> bool:
        return row["dataset"] == "val" if split == "test" else row["dataset"] == "train" and row["site"] == "1"

    rows = list(folder.rows("metadata.csv"))
    names = {int(row["sirna_id"]): row["sirna"] for row in rows}
    pairs = (
        (f"images/{row['experiment']}/Plate{row['plate']}/{row['well']}_s{row['site']}.png", int(row["sirna_id"]))
        for row in rows
        if is_wanted(row)
    )
    return _listing(pairs, [names[label] for label in sorted(names)])


_FMOW_VALIDATION, _FMOW_TEST = "2013-01-01", "2016-01-01"
"""First days of the years that WILDS holds out."""


def list_fmow(folder: Folder, split: Split) -> Listing:
    """WILDS fMoW 1.1: ``rgb_metadata.csv``; "test" is the out-of-distribution validation split, 2013 to 2015.

    Images are numbered by the rows of the file, including rows of the sequestered images, which are not read.
    """

    def is_wanted(row: Mapping[str, str]) -> bool:
        day = row["timestamp"][:10]
        if split == "test":
            return row["split"] == "val" and _FMOW_VALIDATION <= day < _FMOW_TEST
        return row["split"] == "train" and day < _FMOW_VALIDATION

    rows = list(folder.rows("rgb_metadata.csv"))
    names = sorted({row["category"] for row in rows if row["split"] != "seq"})
    pairs = [(f"images/rgb_img_{number}.png", row["category"]) for number, row in enumerate(rows) if is_wanted(row)]
    return _by_class(pairs, names)
