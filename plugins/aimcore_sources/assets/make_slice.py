"""Make the bundled slice of Fashion-MNIST again.

    python plugins/aimcore_sources/assets/make_slice.py [ROOT]

ROOT is the folder of the original files (by default where Debian's package dataset-fashion-mnist puts them). Selection:
the first 1,200 training and the first 300 test images of each class, kept in the order of the original files.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aimcore import OpenSource
from aimcore_sources.fashion_mnist import CLASS_NAMES, FashionMNIST


def first_of_each_class(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Positions of the first ``count`` of every class, ascending."""
    firsts = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(firsts))


def slice_of(source: OpenSource, per_class: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Grey images ``[n, 28, 28]`` and labels ``[n]`` of the chosen samples."""
    labels = np.array([source.label(index) for index in range(len(source))])
    chosen = first_of_each_class(labels, per_class)
    images = np.stack([source.read(index).image[0].numpy() for index in chosen.tolist()])
    return images, labels[chosen].astype(np.uint8)


def main(root: str) -> None:
    """Write ``fashion_mnist_slice.npz`` to the folder of this script."""
    train_images, train_labels = slice_of(FashionMNIST(root=root, split="train").open(), 1200)
    test_images, test_labels = slice_of(FashionMNIST(root=root, split="test").open(), 300)
    path = Path(__file__).parent / "fashion_mnist_slice.npz"
    np.savez_compressed(
        path,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else FashionMNIST().root)
