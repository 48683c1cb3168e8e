"""The whole of Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747), from its own files."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np

from aimcore import OpenSource, PixelStatistics, Source, component
from aimcore.contracts.errors import DataNotFound
from aimcore_sources.arrays import Bytes, OpenArrays

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""The ten classes, by label."""

_FILES = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
_HOW_TO_GET_IT = (
    "install the Debian package dataset-fashion-mnist (root /usr/share/datasets/fashion-mnist), or fetch the four .gz "
    "files from https://github.com/zalandoresearch/fashion-mnist and give their folder as root"
)


@component("fashion_mnist", paper="arXiv:1708.07747")
class FashionMNIST(Source):
    """60,000 training and 10,000 test images of clothes, 28 x 28 px, from IDX files, gzipped or plain."""

    root: str = "/usr/share/datasets/fashion-mnist"
    """Folder of the files; the default is that of Debian's package."""
    split: Literal["train", "test"] = "train"
    """The split."""

    @property
    def statistics(self) -> PixelStatistics:
        """The statistics of the training split."""
        return PixelStatistics(mean=(0.2860,) * 3, std=(0.3530,) * 3)

    def open(self) -> OpenSource:
        """Read the split into memory.

        Raises:
            DataNotFound: a file is missing, damaged or of another size.
        """
        prefix, count = _FILES[self.split]
        images_nHW = read_idx(_find(self.root, f"{prefix}-images-idx3-ubyte"), (count, 28, 28))
        labels_n = read_idx(_find(self.root, f"{prefix}-labels-idx1-ubyte"), (count,))
        return OpenArrays(self, images_nHW, labels_n, CLASS_NAMES)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the files are not part of the package."""
        return ()


def _find(root: str, name: str) -> Path:
    candidates = [Path(root).expanduser() / f"{name}{ending}" for ending in (".gz", "")]
    for path in candidates:
        if path.is_file():
            return path
    looked = " nor ".join(str(path) for path in candidates)
    raise DataNotFound(f"Fashion-MNIST: found neither {looked}. To get it, {_HOW_TO_GET_IT}")


def read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """Return the bytes of an IDX file, which must contain an array of ``shape``.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit integer, then the values.

    Raises:
        DataNotFound: the file is damaged, or has other content.
    """
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    size = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(size + 1)  # one more byte shows that a file is longer, without unpacking it
    except (OSError, EOFError, zlib.error) as cause:
        raise DataNotFound(f"Fashion-MNIST: cannot read {path} ({cause}). To get it again, {_HOW_TO_GET_IT}") from cause
    if not content.startswith(header) or len(content) != size:
        length = f"more than {size}" if len(content) > size else len(content)
        raise DataNotFound(
            f"Fashion-MNIST: {path} is not an IDX file of unsigned bytes of shape {shape}: it has {length} bytes "
            f"and begins with {content[: len(header)].hex()}. To get it again, {_HOW_TO_GET_IT}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=len(header)).reshape(shape)
