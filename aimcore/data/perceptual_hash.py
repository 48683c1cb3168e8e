"""Perceptual hashes of images, and near duplicates by them.

The hash has the signs of the 64 lowest frequencies of a small grey copy of the image, relative to their median (pHash:
C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). Other sizes, qualities of JPEG
and slight changes of colour leave almost all bits as they are; crops, flips and rotations do not. 31 bits are set, so
that two hashes differ in an even number of bits, unless frequencies of an image are equal, as in some drawings.
n: images; u: different hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import interpolate

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

NEAR = 2
"""Default number of bits in which the hashes of near duplicates differ at most."""
_SIDE, _KEPT = 32, 8
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BITS = 64
_AT_ONCE = 2**22
"""Largest number of pairs that are compared at once: about 64 MB."""
_MOST_WAITING = 1024


def perceptual_hash(image_CHW: Tensor) -> int:
    """Return the 64-bit hash of an image, ``uint8 [C, H, W]``, of any size; images of one or two channels are grey.

    Images without any contrast have the hash 0.
    """
    rgb = image_CHW[:3] if image_CHW.shape[0] >= 3 else image_CHW[:1].expand(3, -1, -1)
    small_CHW = interpolate(rgb.float()[None], (_SIDE, _SIDE), mode="bilinear", antialias=True)[0]
    grey_HW = np.tensordot(np.array(_GREY), small_CHW.numpy().astype(np.float64), axes=1)
    frequencies = scipy.fft.dctn(grey_HW, norm="ortho")[:_KEPT, :_KEPT].flatten()
    varying = frequencies[1:]  # the first is the mean, which only exposure changes
    if np.abs(varying).max() < 1:  # of 255 x 32: rounding only
        return 0
    bits = np.concatenate([[False], varying > np.median(varying)])
    return int(np.packbits(bits).view(">u8")[0])


def perceptual_hashes(images: Iterable[Tensor]) -> Hashes:
    """Return the hash of each image, ``uint64 [n]``; see :func:`perceptual_hash`."""
    return np.fromiter(map(perceptual_hash, images), dtype=np.uint64)


def distance(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return in how many bits hashes differ; the arguments broadcast.

    >>> int(distance(0b1011, 0b0001))
    2
    """
    bits: npt.NDArray[np.uint8] = np.bitwise_count(
        np.asarray(left, dtype=np.uint64) ^ np.asarray(right, dtype=np.uint64)
    )
    return bits


def near_duplicates(hashes_n: Hashes, most: int = NEAR) -> list[Indices]:
    """Return groups of at least two images, each within ``most`` bits of another one of its group.

    Groups, and the indices in a group, are ascending. Memory is bounded, and so is the time: at most, every pair of
    different hashes is compared (100,000 hashes in less than a minute). Where it is faster, only those are compared
    that share one of ``most + 1`` parts of their bits.

    >>> [group.tolist() for group in near_duplicates(np.array([7, 2**40, 6, 2**40], dtype=np.uint64), most=1)]
    [[0, 2], [1, 3]]
    """
    unique_u, which_n = np.unique(hashes_n, return_inverse=True)
    group_u = _components(unique_u, most)
    group_n = group_u[which_n]
    order_n = np.argsort(group_n, kind="stable")
    bounds = np.flatnonzero(np.diff(group_n[order_n])) + 1
    groups = [group for group in np.split(order_n, bounds) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def nearest_of(hashes_n: Hashes, references_m: Hashes) -> tuple[Indices, npt.NDArray[np.uint8]]:
    """Return for each hash the index of its nearest reference, the first of several, and its distance in bits.

    Every pair is compared; memory is bounded.

    Raises:
        ValueError: there is no reference.
    """
    if not len(references_m):
        raise ValueError("there is no hash to compare with")
    nearest_n, distance_n = np.zeros(len(hashes_n), dtype=np.int64), np.zeros(len(hashes_n), dtype=np.uint8)
    rows = max(1, _AT_ONCE // len(references_m))
    for start in range(0, len(hashes_n), rows):
        part = slice(start, start + rows)
        found = distance(hashes_n[part, None], references_m[None])
        nearest_n[part], distance_n[part] = found.argmin(1), found.min(1)
    return nearest_n, distance_n


def _components(unique_u: Hashes, most: int) -> Indices:
    """Return the number of the group of each hash."""
    number = len(unique_u)
    group_u: Indices = np.arange(number)
    for left, right in _collected(_near_pairs(unique_u, most)):
        # Joining groups after each block keeps the memory bounded, however many pairs there are.
        edges = coo_array((np.ones(len(left), dtype=bool), (group_u[left], group_u[right])), shape=(number, number))
        _, joined = connected_components(edges, directed=False)
        group_u = joined[group_u].astype(np.int64)
    return group_u


def _collected(pairs: Iterable[tuple[Indices, Indices]]) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs in few large blocks, because each block costs time for all images."""
    waiting: list[tuple[Indices, Indices]] = []
    for block in pairs:
        waiting.append(block)
        if sum(len(left) for left, _ in waiting) >= _AT_ONCE or len(waiting) >= _MOST_WAITING:
            yield _joined(waiting)
            waiting.clear()
    if waiting:
        yield _joined(waiting)


def _joined(blocks: list[tuple[Indices, Indices]]) -> tuple[Indices, Indices]:
    left, right = zip(*blocks, strict=True)
    return np.concatenate(left), np.concatenate(right)


def _near_pairs(unique_u: Hashes, most: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield all pairs within ``most`` bits, in blocks; some may occur several times."""
    everything: Indices = np.arange(len(unique_u))
    buckets = list(_buckets(unique_u, most))
    is_faster = sum(len(bucket) ** 2 for bucket in buckets) < len(unique_u) ** 2
    for bucket in buckets if is_faster else [everything]:
        yield from _pairs_within(unique_u, bucket, most)


def _buckets(unique_u: Hashes, most: int) -> Iterator[Indices]:
    """Yield sets of hashes with a common part. Hashes that differ in ``most`` bits share one of ``most + 1`` parts."""
    if most >= _BITS:
        yield np.arange(len(unique_u))
        return
    for low, high in pairwise(np.linspace(0, _BITS, most + 2).astype(int)):
        part_u = (unique_u >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1)
        order_u = np.argsort(part_u, kind="stable")
        bounds = np.flatnonzero(np.diff(part_u[order_u])) + 1
        yield from (bucket for bucket in np.split(order_u, bounds) if len(bucket) > 1)


def _pairs_within(unique_u: Hashes, bucket: Indices, most: int) -> Iterator[tuple[Indices, Indices]]:
    hashes = unique_u[bucket]
    rows = max(1, _AT_ONCE // max(1, len(bucket)))
    for start in range(0, len(bucket), rows):
        # Pairs with earlier rows were compared already.
        found = distance(hashes[start : start + rows, None], hashes[None, start:]) <= most
        left, right = np.nonzero(found)
        is_new = left < right
        if is_new.any():
            yield bucket[start + left[is_new]], bucket[start + right[is_new]]
