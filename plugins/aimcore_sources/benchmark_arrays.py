"""Benchmarks whose images are arrays in files: CIFAR's binary files, and HDF5."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aimcore import OpenSource, Sample
from aimcore.contracts.errors import DataNotFound
from aimcore.io.locations import local_path
from aimcore_sources.arrays import Bytes
from aimcore_sources.benchmark_listing import Folder, Split

_SIDE = 32
_PCAM_NAMES = ("no tumor in the centre", "tumor in the centre")


class OpenPixels(OpenSource):
    """Images ``uint8 [n, C, H, W]`` in memory."""

    def __init__(self, name: str, images_nCHW: Bytes, labels_n: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
        self._name, self._images_nCHW, self._labels_n = name, images_nCHW, labels_n
        self.class_names = names

    def __len__(self) -> int:
        return len(self._labels_n)

    def read(self, index: int) -> Sample:
        """Return a copy of the image."""
        image_CHW = torch.from_numpy(self._images_nCHW[index].copy())
        return Sample(image=image_CHW, identifier=f"{self._name}/{index}", label=self.label(index))

    def label(self, index: int) -> int:
        """The label, from memory."""
        return int(self._labels_n[index])

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return all labels."""
        return self._labels_n


def open_cifar10(folder: Folder, split: Split, name: str) -> OpenPixels:
    """Five files of training images or one of test images, in CIFAR-10's binary version.

    Raises:
        DataNotFound: a file is missing, or not a whole number of images.
    """
    files = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
    records_nF = np.concatenate([_records(folder, file, num_labels=1) for file in files])
    names = tuple(folder.text("batches.meta.txt").split())
    return _open(name, records_nF, num_labels=1, names=names)


def open_cifar100(folder: Folder, split: Split, name: str) -> OpenPixels:
    """A file of training or test images, in CIFAR-100's binary version: a coarse and a fine label per image.

    Raises:
        DataNotFound: the file is missing, or not a whole number of images.
    """
    records_nF = _records(folder, f"{split}.bin", num_labels=2)
    return _open(name, records_nF, num_labels=2, names=tuple(folder.text("fine_label_names.txt").split()))


def _records(folder: Folder, file: str, *, num_labels: int) -> Bytes:
    """Return the records ``[n, labels + 3072]`` of a binary file of CIFAR."""
    content, size = folder.content(file), num_labels + 3 * _SIDE**2
    if len(content) % size:
        raise DataNotFound(f"{folder.url}/{file} has {len(content)} bytes, not a multiple of {size}: it was cut short")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, size)


def _open(name: str, records_nF: Bytes, *, num_labels: int, names: tuple[str, ...]) -> OpenPixels:
    images_nCHW = records_nF[:, num_labels:].reshape(-1, 3, _SIDE, _SIDE)
    # The last label of a record is that of the class; CIFAR-100 has a coarse one before it.
    return OpenPixels(name, images_nCHW, records_nF[:, num_labels - 1].astype(np.int64), names)


def open_pcam(folder: Folder, split: Split, name: str) -> OpenPCam:
    """Patch Camelyon: an HDF5 file of images ``[n, 96, 96, 3]``, and one of labels ``[n, 1, 1, 1]``.

    Raises:
        DataNotFound: h5py is not installed, a file is missing or damaged, or the folder is not on a local disk.
    """
    try:
        import h5py  # noqa: F401
    except ImportError as cause:
        raise DataNotFound("Patch Camelyon is stored as HDF5: pip install 'aimcore[hdf5]'") from cause
    root = local_path(folder.url)
    if root is None:
        raise DataNotFound(f"Patch Camelyon is read from a local disk only, got {folder.url}")
    stem = Path(root) / f"camelyonpatch_level_2_split_{split}"
    labels_n = np.asarray(_dataset(f"{stem}_y.h5", "y")[:]).reshape(-1).astype(np.int64)
    opened = OpenPCam(name, f"{stem}_x.h5", labels_n)
    if len(opened.images()) != len(labels_n):
        raise DataNotFound(f"{stem}_x.h5 has {len(opened.images())} images, its labels are {len(labels_n)}")
    return opened


class OpenPCam(OpenSource):
    """Images in an HDF5 file, which each thread opens for itself."""

    def __init__(self, name: str, path: str, labels_n: npt.NDArray[np.int64]) -> None:
        self._name, self._path, self._labels_n = name, path, labels_n
        self._thread = threading.local()
        self.class_names = _PCAM_NAMES

    def __len__(self) -> int:
        return len(self._labels_n)

    def images(self) -> Any:
        """Return the array ``[n, 96, 96, 3]`` of this thread's file."""
        if not hasattr(self._thread, "images"):
            self._thread.images = _dataset(self._path, "x")
        return self._thread.images

    def read(self, index: int) -> Sample:
        """Return the image, from the file."""
        label = self.label(index)
        image_CHW = torch.from_numpy(np.ascontiguousarray(np.asarray(self.images()[index]).transpose(2, 0, 1)))
        return Sample(image=image_CHW, identifier=f"{self._name}/{index}", label=label)

    def label(self, index: int) -> int:
        """The label, from memory."""
        return int(self._labels_n[index])

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return all labels."""
        return self._labels_n

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Leave open files behind."""
        return OpenPCam, (self._name, self._path, self._labels_n)


def _dataset(path: str, key: str) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")[key]
    except (OSError, KeyError) as cause:
        raise DataNotFound(f"cannot read {key!r} in {path}: {cause}") from cause
