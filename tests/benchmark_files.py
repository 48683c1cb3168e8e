"""Small copies of AIM's benchmarks, each in the layout of its publishers: two or more images per split and class."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path: Path, brightness: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (brightness, 0, 0)).save(path)


def lines(path: Path, words: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(words) + "\n")


def table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_imagenet(root: Path) -> None:
    for number, name in enumerate(("train/n1/a", "train/n1/b", "train/n2/c", "val/n1/d", "val/n2/e")):
        picture(root / "imagenet" / f"{name}.JPEG", number)


def write_inat18(root: Path) -> None:
    base = root / "inat2018"
    categories = [{"id": 4, "name": "Quercus robur"}, {"id": 2, "name": "Ailuropoda"}]
    for split, kinds in (("train", (2, 4, 2)), ("val", (4, 2))):
        images = [{"id": 10 + n, "file_name": f"train_val2018/{split}/{n}.jpg"} for n in range(len(kinds))]
        found = [{"image_id": 10 + n, "category_id": kind} for n, kind in reversed(list(enumerate(kinds)))]
        base.mkdir(exist_ok=True)
        (base / f"{split}2018.json").write_text(
            json.dumps({"images": images, "annotations": found, "categories": categories})
        )
        for n in range(len(kinds)):
            picture(base / f"train_val2018/{split}/{n}.jpg", n)


def write_cifar10(root: Path) -> None:
    base = root / "cifar-10-batches-bin"
    lines(base / "batches.meta.txt", ["cat", "dog", ""])
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        records = np.zeros((2, 3073), dtype=np.uint8)
        records[:, 0] = 1, 0
        records[:, 1:1025] = number  # red
        records[:, 1025 + 1] = 200  # the second green pixel of the first row
        (base / f"{name}.bin").write_bytes(records.tobytes())


def write_cifar100(root: Path) -> None:
    base = root / "cifar-100-binary"
    lines(base / "fine_label_names.txt", ["apple", "bear"])
    for name in ("train", "test"):
        records = np.full((3, 3074), 7, dtype=np.uint8)
        records[:, 0] = 19  # coarse
        records[:, 1] = 0, 1, 1  # fine
        base.mkdir(exist_ok=True)
        (base / f"{name}.bin").write_bytes(records.tobytes())


def write_food101(root: Path) -> None:
    base = root / "food-101"
    splits = {
        "train": {"waffles": ["waffles/3", "waffles/4"], "baklava": ["baklava/1"]},
        "test": {"baklava": ["baklava/2"]},
    }
    splits["test"]["waffles"] = ["waffles/5"]
    for split, content in splits.items():
        lines(base / "meta" / f"{split}.json", [json.dumps(content)])
        for names in content.values():
            for name in names:
                picture(base / "images" / f"{name}.jpg", int(name[-1]))


def write_dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for number, split in enumerate(("train1", "val1", "test1")):
        names = [f"{kind}/{kind}_{number}.jpg" for kind in ("zigzagged", "banded")]
        lines(base / "labels" / f"{split}.txt", names)
        for name in names:
            picture(base / "images" / name, number)


def write_pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    splits = {
        "trainval": ["great_pyrenees_1 2 2 1", "Abyssinian_1 1 1 1", "Abyssinian_2 1 1 1"],
        "test": ["Abyssinian_3 1 1 1", "great_pyrenees_2 2 2 1"],
    }
    for split, rows in splits.items():
        lines(base / "annotations" / f"{split}.txt", rows)
        for row in rows:
            picture(base / "images" / f"{row.split()[0]}.jpg", int(row.split()[0][-1]))


def write_cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.empty((1, 2), dtype=object)
    names[0] = ["Acura RL", "Audi S4"]
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, kinds in (("train", (2, 1, 2)), ("test", (1, 2))):
        rows = np.array([(f"{n:05}.jpg", kind) for n, kind in enumerate(kinds)], dtype=[("fname", "O"), ("class", "O")])
        path = base / ("devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat")
        savemat(path, {"annotations": rows[None]})
        for n in range(len(kinds)):
            picture(base / f"cars_{split}" / f"{n:05}.jpg", n)


def write_iwildcam(root: Path) -> None:
    base = root / "iwildcam_v2.0"
    table(
        base / "categories.csv",
        [
            {"y": 1, "category_id": 9, "name": "lion"},
            {"y": 0, "category_id": 3, "name": "empty"},
            {"y": 99999, "category_id": 4, "name": "unseen"},
        ],
    )
    splits = ("train", "id_val", "val", "train", "test", "val", "train")
    rows = [{"split": split, "filename": f"{n}.jpg", "y": n % 2} for n, split in enumerate(splits)]
    table(base / "metadata.csv", rows)
    for n in range(len(rows)):
        picture(base / "train" / f"{n}.jpg", n)


def write_camelyon17(root: Path) -> None:
    base = root / "camelyon17_v1.0"
    # (center, split): split 1 is the validation of the same hospitals; all of hospitals 1 and 2 is held out.
    kinds = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0))
    rows: list[Mapping[str, object]] = [
        {
            "": n, "patient": f"{n:03}", "node": 1, "x_coord": 96, "y_coord": 32 * n, "tumor": n % 2, "slide": n,
            "center": center, "split": split,
        }
        for n, (center, split) in enumerate(kinds)
    ]  # fmt: skip
    table(base / "metadata.csv", rows)
    for n in range(len(kinds)):
        name = f"patient_{n:03}_node_1"
        picture(base / "patches" / name / f"patch_{name}_x_96_y_{32 * n}.png", n)


def write_pcam(root: Path) -> None:
    base = root / "pcam"
    base.mkdir()
    for split in ("train", "test"):
        pixels = np.zeros((4, 96, 96, 3), dtype=np.uint8)
        pixels[..., 1] = np.arange(4)[:, None, None]
        pixels[2, 0, 1] = 9, 8, 7
        for kind, key, values in (("x", "x", pixels), ("y", "y", np.array([0, 1, 1, 0]).reshape(4, 1, 1, 1))):
            with h5py.File(base / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                file[key] = values


def write_rxrx1(root: Path) -> None:
    base = root / "rxrx1_v1.0"
    # Site 2 of the training experiments is WILDS's test in distribution.
    kinds = (("train", 1), ("train", 2), ("val", 1), ("val", 2), ("test", 1), ("train", 1))
    rows = [
        {
            "dataset": dataset, "experiment": "HUVEC-01", "plate": 3, "well": f"B{n:02}", "site": site,
            "sirna": f"s{n % 2}", "sirna_id": n % 2,
        }
        for n, (dataset, site) in enumerate(kinds)
    ]  # fmt: skip
    table(base / "metadata.csv", rows)
    for n, (_, site) in enumerate(kinds):
        picture(base / "images" / "HUVEC-01" / "Plate3" / f"B{n:02}_s{site}.png", n)


def write_eurosat(root: Path) -> None:
    base = root / "eurosat"
    splits = {"train": ["River_1.jpg", "AnnualCrop_1.jpg", "River_2.jpg"], "test": ["AnnualCrop_2.jpg", "River_3.jpg"]}
    for split, names in splits.items():
        lines(base / f"eurosat-{split}.txt", names)
        for name in names:
            picture(base / "2750" / name.split("_")[0] / name, int(name[-5]))


def write_fmow(root: Path) -> None:
    base = root / "fmow_v1.1"
    kinds = (
        ("seq", "2017-01-01", "zoo"), ("train", "2012-12-31", "zoo"), ("train", "2013-01-01", "dam"),
        ("val", "2012-01-01", "dam"), ("val", "2013-01-01", "zoo"), ("val", "2015-12-31", "dam"),
        ("val", "2016-01-01", "zoo"), ("train", "2002-02-02", "dam"),
    )  # fmt: skip
    rows = [{"split": split, "timestamp": f"{day}T10:00:00Z", "category": kind} for split, day, kind in kinds]
    table(base / "rgb_metadata.csv", rows)
    for n in range(len(rows)):
        picture(base / "images" / f"rgb_img_{n}.png", n)


def write_infographic(root: Path) -> None:
    base = root / "domainnet"
    splits = {
        "train": ("zebra/i_1.jpg 1", "axe/i_2.jpg 0", "axe/i_3.jpg 0"),
        "test": ("zebra/i_4.jpg 1", "axe/i_5.jpg 0"),
    }
    for split, names in splits.items():
        lines(base / f"infograph_{split}.txt", [f"infograph/{name}" for name in names])
        for name in names:
            picture(base / "infograph" / name.split()[0], int(name.split()[0][-5]))


WRITERS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("write_"): value for name, value in list(globals().items()) if name.startswith("write_")
}
