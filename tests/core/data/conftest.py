from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image

from aimcore import Batch, Data, Text
from aimcore_sources import BundledFashionMNIST, ImageFolder


@pytest.fixture
def data() -> Callable[..., Data]:
    """Small settings: steps of 8 images of 8 x 8 px."""

    def make(**changes: object) -> Data:
        source = BundledFashionMNIST()
        settings = {"batch_size": 8, "image_size": 8, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.1), **changes}
        return Data(train=source, validation=source, **settings)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    """Twenty noisy pictures of two classes, on disk, so that data processes can read them too."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        path = tmp_path / f"class_{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    return ImageFolder(url=str(tmp_path))


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What aimcore warns of during the test."""
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def same_value(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def same_text(one: Text | None, other: Text | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.ids_BT, other.ids_BT) and torch.equal(one.valid_BT, other.valid_BT)


@pytest.fixture
def same() -> Callable[[Batch, Batch], bool]:
    """Whether two batches are equal to the last bit."""

    def compare(one: Batch, other: Batch) -> bool:
        return (
            torch.equal(one.images.patches_BNF, other.images.patches_BNF)
            and torch.equal(one.sample_numbers_B, other.sample_numbers_B)
            and (one.labels_B is None) == (other.labels_B is None)
            and (one.labels_B is None or torch.equal(one.labels_B, other.labels_B))
            and one.views.keys() == other.views.keys()
            and all(torch.equal(one.views[key], other.views[key]) for key in one.views)
            and one.extras.keys() == other.extras.keys()
            and all(same_value(one.extras[key], other.extras[key]) for key in one.extras)
            and same_text(one.text, other.text)
        )

    return compare
