"""Loading of JPEGs for training: decoding, RandomResizedCrop, flip and normalisation, beside torchvision.

    python benchmarks/data.py [--sizes 500x375 1600x1200] [--workers 0 2] [--rounds 5] [--detail 0] [--json FILE]

The files have random smooth content and JPEG quality 90; ``--detail`` adds noise of several scales, which makes them as
large as photographs. aimcore reads them by its source ``image_folder`` and from a zarr group. torchvision has its
``ImageFolder``, ``RandomResizedCrop`` (the same scales and bicubic interpolation), ``RandomHorizontalFlip``,
``ToTensor`` and ``Normalize`` in torch's DataLoader. Rounds alternate. Each has new workers, and is measured after the
batches that these load ahead, so that no start-up counts. Times are wall time, and the processor time of the process
and its workers; a ratio compares two times of one round, and the table has medians. The pixel difference compares crops
of the same rectangles.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import machine
import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder as TheirFolder

from aimcore import Data, Source
from aimcore.data import train_steps
from aimcore.data.transforms import Crop, CropDraws, render_crop
from aimcore.experiment.data import IMAGENET_MEAN, IMAGENET_STD
from aimcore_sources import ImageFolder, ZarrImages, write_zarr

SIDE, PATCH, BATCH = 224, 14, 32
NUM_FILES = 48
Loader = Callable[[int, int], Iterator[Any]]
"""Yields ``num_batches`` batches with ``num_workers`` workers."""


@attrs.frozen
class Rate:
    """Seconds per image: of the clock, and of all processors."""

    wall: float
    processor: float


def write_files(folder: Path, width: int, height: int, detail: float) -> None:
    """Write ``NUM_FILES`` JPEGs in one class folder."""
    generator = np.random.default_rng(0)
    (folder / "one").mkdir(parents=True)
    for number in range(NUM_FILES):
        picture = _octave(generator, 12, 16, width, height)
        for scale, strength in ((1, 4), (4, 25), (16, 15)):
            rows, columns = height // scale, width // scale
            picture = picture + detail * strength / 128 * (_octave(generator, rows, columns, width, height) - 128)
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        image.save(folder / "one" / f"{number:03}.jpg", quality=90)


def _octave(generator: np.random.Generator, rows: int, columns: int, width: int, height: int) -> Any:
    coarse = Image.fromarray(generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _source(folder: Path) -> ImageFolder:
    return ImageFolder(url=str(folder))


def ours(source: Source) -> Loader:
    """Return the loader of training."""

    def load(num_batches: int, num_workers: int) -> Iterator[Any]:
        data = Data(train=source, validation=source, batch_size=BATCH, image_size=SIDE, num_workers=num_workers)
        return train_steps(data, source.open(), patch_size=PATCH, seed=0, num_steps=num_batches)

    return load


def theirs(folder: Path) -> Loader:
    """Return torchvision's loader, with the same augmentation."""
    augmentation = Data(train=_source(folder), validation=_source(folder), batch_size=1).augmentation
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                SIDE, augmentation.crop_scale, augmentation.crop_ratio, transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(augmentation.flip_probability),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    files = TheirFolder(str(folder), transform)

    def load(num_batches: int, num_workers: int) -> Iterator[Any]:
        sampler = RandomSampler(files, replacement=True, num_samples=num_batches * BATCH)
        yield from DataLoader(files, BATCH, sampler=sampler, num_workers=num_workers)

    return load


def measure(load: Loader, num_batches: int, num_workers: int) -> Rate:
    """Measure a loader from the batches on that workers had loaded ahead."""
    ahead = 2 * max(num_workers, 1)
    batches = load(num_batches + ahead, num_workers)
    with closing(batches):  # type: ignore[type-var]
        for _ in range(ahead):
            next(batches)
        wall, processor = time.perf_counter(), _processor_seconds()
        for _ in range(num_batches):
            next(batches)
        spent = time.perf_counter() - wall, _processor_seconds() - processor
    return Rate(*(seconds / (num_batches * BATCH) for seconds in spent))


def _processor_seconds() -> float:
    """Return the seconds of this process and of its children, which still run."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def pixel_difference(folder: Path) -> tuple[int, float]:
    """Return the largest and the mean difference to torchvision's crops of the same rectangles, of 256."""
    opened = _source(folder).open()
    data = Data(train=_source(folder), validation=_source(folder), batch_size=1)
    draws = CropDraws.of(data.augmentation, 0, np.arange(len(opened)))
    largest, means = 0, []
    for index in range(min(16, len(opened))):
        image_CHW = opened.read(index).image
        crop: Crop = draws.crop(index, *image_CHW.shape[1:])
        with Image.open(folder / opened.read(index).identifier) as file:
            box = (crop.top, crop.left, crop.height, crop.width)
            cut = transforms.functional.resized_crop(
                file.convert("RGB"), *box, [SIDE, SIDE], transforms.InterpolationMode.BICUBIC
            )
        expected_CHW = torch.from_numpy(np.array(cut)).permute(2, 0, 1)
        found_CHW = render_crop(image_CHW, attrs.evolve(crop, flip=False), SIDE)
        difference = (found_CHW.int() - expected_CHW.int()).abs()
        largest = max(largest, int(difference.max()))
        means.append(float(difference.float().mean()))
    return largest, sum(means) / len(means)


def rows_of(size: str, folder: Path, workers: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of workers and each of our sources."""
    width, height = map(int, size.split("x"))
    num_batches = max(4, round(24 * 500 * 375 / (width * height)))
    opened = _source(folder).open()
    stored = folder.parent / f"{size}.zarr"
    write_zarr(str(stored), opened)
    largest, mean = pixel_difference(folder)
    loaders = {
        "torchvision": theirs(folder),
        "image_folder": ours(_source(folder)),
        "zarr": ours(ZarrImages(url=str(stored))),
    }
    for num_workers in workers:
        taken: dict[str, list[Rate]] = {name: [] for name in loaders}
        for _ in range(rounds):
            for name, load in loaders.items():
                taken[name].append(measure(load, num_batches, num_workers))
        for name in ("image_folder", "zarr"):
            pairs = list(zip(taken["torchvision"], taken[name], strict=True))
            yield {
                "size": size,
                "bytes_per_file": round(sum(file.stat().st_size for file in folder.rglob("*.jpg")) / NUM_FILES),
                "workers": num_workers,
                "source": name,
                "images_per_second": 1 / median(rate.wall for rate in taken[name]),
                "torchvision_images_per_second": 1 / median(rate.wall for rate in taken["torchvision"]),
                "ratio": median(theirs.wall / own.wall for theirs, own in pairs),
                "processor_ms": 1e3 * median(rate.processor for rate in taken[name]),
                "torchvision_processor_ms": 1e3 * median(rate.processor for rate in taken["torchvision"]),
                "processor_ratio": median(theirs.processor / own.processor for theirs, own in pairs),
                "largest_pixel_difference": largest,
                "mean_pixel_difference": mean,
                "rounds": rounds,
            }


_HEADS = ("size", "workers", "source", "images/s", "torchvision", "ratio", "ms CPU", "torchvision", "ratio")


def _line(row: dict[str, Any]) -> str:
    cells = (
        row["size"], row["workers"], row["source"], f"{row['images_per_second']:.0f}",
        f"{row['torchvision_images_per_second']:.0f}", f"{row['ratio']:.2f}", f"{row['processor_ms']:.2f}",
        f"{row['torchvision_processor_ms']:.2f}", f"{row['processor_ratio']:.2f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["500x375", "1600x1200"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--detail", type=float, default=0.0, help="strength of added noise, 0 to 1")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    described = machine.describe()
    print(described)
    print("| " + " | ".join(_HEADS) + " |\n" + "|---" * len(_HEADS) + "|")
    rows = []
    root = Path(tempfile.mkdtemp())
    try:
        for size in arguments.sizes:
            folder = root / size
            write_files(folder, *map(int, size.split("x")), arguments.detail)
            for row in rows_of(size, folder, arguments.workers, arguments.rounds):
                rows.append(row)
                print(_line(row), flush=True)
    finally:
        shutil.rmtree(root)
    for row in {row["size"]: row for row in rows}.values():
        print(
            f"{row['size']}: {row['bytes_per_file'] / 1024:.0f} KiB per file; pixels differ by at most "
            f"{row['largest_pixel_difference']} of 255, {row['mean_pixel_difference']:.3f} in the mean"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": described, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
