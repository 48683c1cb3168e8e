import hashlib
import pickle
from importlib import resources

import numpy as np
import pytest
import torch

from aimcore import Data
from aimcore.data import evaluation_batches
from aimcore_sources import BundledFashionMNIST
from aimcore_sources.arrays import OpenArrays

ASSETS = resources.files("aimcore_sources") / "assets"
HASHES = {
    "train": "979127814c8cc83f89ae2294df45859fd429b5fbdd39c07c9423882d57b1a828",
    "test": "41330701d0ce7e925f4b69d5415ced43e0aef43eddd137de22fe631ce7005c95",
}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_slice_is_always_the_same(split: str) -> None:
    with (ASSETS / "fashion_mnist_slice.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        content = arrays[f"{split}_images"].tobytes() + arrays[f"{split}_labels"].tobytes()
    assert hashlib.sha256(content).hexdigest() == HASHES[split]


@pytest.mark.parametrize(("split", "per_class"), [("train", 1200), ("test", 300)])
def test_classes_are_balanced(split: str, per_class: int) -> None:
    source = BundledFashionMNIST(split=split).open()
    labels = [source.label(index) for index in range(len(source))]
    assert np.bincount(labels).tolist() == [per_class] * 10
    assert len(source.class_names) == 10


def test_an_image_is_rgb_of_three_equal_channels() -> None:
    sample = BundledFashionMNIST(split="test").open().read(0)
    assert (sample.image.shape, sample.image.dtype) == ((3, 28, 28), torch.uint8)
    assert torch.equal(sample.image[0], sample.image[2])
    # The first test image of the original is an ankle boot.
    assert (sample.label, sample.identifier) == (9, "bundled_fashion_mnist/0")


def test_writing_to_an_image_changes_neither_the_source_nor_another_channel() -> None:
    source = BundledFashionMNIST(split="test").open()
    before = source.read(5).image.clone()
    source.read(5).image[0].fill_(255)
    assert torch.equal(source.read(5).image, before)


def test_the_file_is_read_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = BundledFashionMNIST(split="test").open().read(5)
    monkeypatch.setattr(np, "load", None)
    assert torch.equal(BundledFashionMNIST(split="test").open().read(5).image, first.image)


def test_it_travels_to_workers_as_a_recipe_not_as_data() -> None:
    source = BundledFashionMNIST(split="test").open()
    sent = pickle.dumps(source)
    arrived = pickle.loads(sent)
    assert len(sent) < 1000
    assert isinstance(arrived, OpenArrays)
    assert torch.equal(arrived.read(7).image, source.read(7).image)


def test_the_licence_and_the_script_stand_beside_the_slice_and_it_is_small() -> None:
    assert "The MIT License" in (ASSETS / "FASHION_MNIST_LICENSE.txt").read_text()
    assert (ASSETS / "make_slice.py").is_file()
    assert len((ASSETS / "fashion_mnist_slice.npz").read_bytes()) <= 8_000_000


def test_statistics_are_those_of_the_training_part() -> None:
    with (ASSETS / "fashion_mnist_slice.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        unit_nHW = arrays["train_images"].astype(np.float64) / 255
    for split in ("train", "test"):
        mean, std = BundledFashionMNIST(split=split).statistics
        # Four digits are given; three equal channels keep grey pictures grey.
        assert np.allclose(mean, [unit_nHW.mean()] * 3, atol=5e-5, rtol=0)
        assert np.allclose(std, [unit_nHW.std()] * 3, atol=5e-5, rtol=0)


def test_a_study_normalises_with_them_so_that_grey_stays_grey() -> None:
    source = BundledFashionMNIST()
    data = Data(train=source, validation=source, batch_size=4, image_size=28)
    (batch,) = evaluation_batches(data, source.open(), patch_size=7, batch_size=64, indices=range(64))
    pixels_BCHW = batch.images.pixels_BCHW
    assert torch.equal(pixels_BCHW[:, 0], pixels_BCHW[:, 1])
    assert torch.equal(pixels_BCHW[:, 0], pixels_BCHW[:, 2])
    # Without these statistics black is (0 - 0.485) / 0.229 in red and (0 - 0.406) / 0.225 in blue.
    assert pixels_BCHW.min().item() == pytest.approx(-0.2865 / 0.3539, abs=1e-6)
