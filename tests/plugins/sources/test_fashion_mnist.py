import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from aimcore.contracts.errors import DataNotFound
from aimcore_sources import FashionMNIST


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(root: Path, *, gzipped: bool, images: int = 10_000) -> None:
    pixels = (np.arange(images)[:, None, None] % 256 * np.ones((1, 28, 28))).astype(np.uint8)
    labels = (np.arange(10_000) % 10).astype(np.uint8)
    for name, array in (("t10k-images-idx3-ubyte", pixels), ("t10k-labels-idx1-ubyte", labels)):
        content = gzip.compress(idx(array), 1) if gzipped else idx(array)
        (root / (name + (".gz" if gzipped else ""))).write_bytes(content)


@pytest.mark.parametrize("gzipped", [True, False])
def test_plain_and_gzipped_files_are_read(tmp_path: Path, gzipped: bool) -> None:
    write(tmp_path, gzipped=gzipped)
    source = FashionMNIST(root=str(tmp_path), split="test").open()
    assert len(source) == 10_000
    assert (source.read(259).image == 3).all()
    assert (source.read(259).label, source.class_names[9]) == (9, "Ankle boot")


def test_missing_files_are_an_error_that_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"train-images-idx3-ubyte.gz nor .*dataset-fashion-mnist.*github.com/zal"):
        FashionMNIST(root=str(tmp_path)).open()


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    write(tmp_path, gzipped=False, images=9_999)
    with pytest.raises(DataNotFound, match=r"is not an IDX file of unsigned bytes of shape \(10000, 28, 28\)"):
        FashionMNIST(root=str(tmp_path), split="test").open()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write(tmp_path, gzipped=True)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataNotFound, match=r"cannot read .*t10k-labels-idx1-ubyte.gz"):
        FashionMNIST(root=str(tmp_path), split="test").open()
