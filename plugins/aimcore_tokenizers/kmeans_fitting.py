"""Fits k-means to the patches of a stream of images, with scikit-learn's MiniBatchKMeans.

Shape suffixes: B batch, N patches, P patches of all images, F values per patch, K centres.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from aimcore import FittingData, Problem, TokenizerFit, at_least, settings
from aimcore.contracts import limits
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import patchify
from aimcore.io.tokenizer_files import TokenizerRecord, write_tokenizer
from aimcore_tokenizers.clusters import Space, into_space, nearest
from aimcore_tokenizers.files import library

Array = npt.NDArray[np.float32]
_CANDIDATES_PER_PATCH = 4
"""The sample of k-means++ is drawn from this many times as many patches."""
_MOST_ROUNDS = 3


class TooFewPatches(AimcoreError):
    """There are fewer patches than centres."""


@settings
class KMeansFit(TokenizerFit):
    """How k-means is fitted; the paper (arXiv:2401.08541, Table 3a) publishes none of these settings.

    Centres begin with k-means++ on a sample, and move in mini-batches of patches. Afterwards every centre without a
    patch is replaced by one of the patches that are farthest from their centres.
    """

    num_codes: int = 8192
    """K; as many as the dVAE of the same table has."""
    space: Space = "raw"
    """Pixels from 0 to 1, or pixels normalised per patch as in the target ``normalized_pixels``."""
    num_images: int = 100_000
    """Images that are read in each pass: training crops, which repeat if the source has fewer images."""
    passes: int = 1
    """How often the images are read to move centres. Each pass over them sees the same crops."""
    sample_per_code: int = 3
    """Patches per centre in the sample of k-means++."""
    batch_patches: int = 8192
    """Patches per mini-batch, at least one per centre."""
    seed: int = 0
    """Seed of the sample and of k-means++."""

    def problems(self) -> Iterable[Problem]:
        """Yield counts that are not positive."""
        yield from at_least("num_codes", self.num_codes, 1, limits.CLASSES)
        yield from at_least("num_images", self.num_images, 1, limits.IMAGES)
        yield from at_least("passes", self.passes, 1, limits.EPOCHS)
        yield from at_least("sample_per_code", self.sample_per_code, 1, limits.CLASSES)
        yield from at_least("batch_patches", self.batch_patches, 1, limits.CLASSES)
        yield from at_least("seed", self.seed, 0, 2**32 - 1)

    def fit(self, data: FittingData, path: Path) -> None:
        """Fit centres to the patches of ``data``, and write them to ``path``.

        Raises:
            MissingLibrary: scikit-learn is not installed.
            TooFewPatches: the images have fewer patches than centres.
        """
        cluster = library("sklearn.cluster", "kmeans", package="scikit-learn", extra="kmeans")
        sample_PF = self._sample(data)
        data.progress("choosing centres", 0, 1)
        centres_KF, _ = cluster.kmeans_plusplus(sample_PF, self.num_codes, random_state=self.seed)
        data.progress("choosing centres", 1, 1)
        moved_KF = self._moved(data, cluster, centres_KF)
        fit = self._with_used_centres(data, moved_KF)
        self._write(data, path, fit)

    def _sample(self, data: FittingData) -> Array:
        """``[P, F]`` patches for k-means++, drawn from the first images."""
        wanted = self.num_codes * self.sample_per_code
        pieces, found = [], 0
        for piece_PF in self._patches(data, "sampling patches"):
            pieces.append(piece_PF)
            found += len(piece_PF)
            if found >= wanted * _CANDIDATES_PER_PATCH:
                break
        if found < self.num_codes:
            raise TooFewPatches(
                f"{self.num_codes} centres need at least as many patches, and {self.num_images} images have {found}: "
                "lower num_codes or raise num_images"
            )
        all_PF = np.concatenate(pieces)
        return all_PF[np.random.default_rng(self.seed).permutation(found)[:wanted]]

    def _moved(self, data: FittingData, cluster: Any, centres_KF: Array) -> Array:
        """Move the centres in mini-batches."""
        # Reassignment in mini-batches would replace most centres of k-means++ in the first one, as few have a patch.
        model = cluster.MiniBatchKMeans(
            self.num_codes, init=centres_KF, n_init=1, reassignment_ratio=0.0, compute_labels=False,
            random_state=self.seed, batch_size=max(self.batch_patches, self.num_codes),
        )  # fmt: skip
        for number in range(self.passes):
            for batch_PF in self._batches(data, f"moving centres, pass {number + 1} of {self.passes}"):
                model.partial_fit(batch_PF)
        moved_KF: Array = np.asarray(model.cluster_centers_, dtype=np.float32)
        return moved_KF

    def _with_used_centres(self, data: FittingData, centres_KF: Array) -> _Assigned:
        """Replace centres without a patch by the patches that are farthest from theirs, and count again."""
        found = self._assigned(data, centres_KF)
        for _ in range(_MOST_ROUNDS):
            empty_E = np.flatnonzero(found.counts_K == 0)[: len(found.farthest_PF)]
            if not len(empty_E):
                break
            centres_KF = centres_KF.copy()
            centres_KF[empty_E] = found.farthest_PF[: len(empty_E)]
            found = self._assigned(data, centres_KF)
        num_empty = int((found.counts_K == 0).sum())
        if num_empty:
            logger.warning("{} of {} centres have no patch: fewer patches differ", num_empty, self.num_codes)
        return found

    def _assigned(self, data: FittingData, centres_KF: Array) -> _Assigned:
        counts_K = np.zeros(len(centres_KF), dtype=np.int64)
        farthest_PF, distance_P = np.zeros((0, centres_KF.shape[1]), np.float32), np.zeros(0, np.float32)
        inertia = 0.0
        for batch_PF in self._batches(data, "counting codes"):
            codes_P = nearest(torch.from_numpy(batch_PF), torch.from_numpy(centres_KF)).numpy()
            counts_K += np.bincount(codes_P, minlength=len(centres_KF))
            own_P = np.square(batch_PF - centres_KF[codes_P]).sum(1)
            inertia += float(own_P.sum(dtype=np.float64))
            most = int((counts_K == 0).sum())
            farthest_PF, distance_P = _farthest(
                np.concatenate([farthest_PF, batch_PF]), np.concatenate([distance_P, own_P]), most
            )
        return _Assigned(centres_KF, counts_K, farthest_PF, inertia / max(1, int(counts_K.sum())))

    def _batches(self, data: FittingData, doing: str) -> Iterator[Array]:
        """Yield mini-batches ``[P, F]``; only the last may be smaller."""
        size = max(self.batch_patches, self.num_codes)
        waiting: list[Array] = []
        for piece_PF in self._patches(data, doing):
            waiting.append(piece_PF)
            if sum(map(len, waiting)) >= size:
                together_PF = np.concatenate(waiting)
                whole = len(together_PF) // size * size
                yield from np.split(together_PF[:whole], whole // size)
                waiting = [together_PF[whole:]]
        if sum(map(len, waiting)):
            yield np.concatenate(waiting)

    def _patches(self, data: FittingData, doing: str) -> Iterator[Array]:
        """Yield the patches of the images ``[P, F]``, in ``space``."""
        done = 0
        for view_BCHW in data.views(self.num_images):
            patches_BNF = into_space(patchify(view_BCHW.float(), data.patch_size), self.space)
            yield patches_BNF.flatten(0, 1).numpy()
            done += len(view_BCHW)
            data.progress(doing, done, self.num_images)

    def _write(self, data: FittingData, path: Path, fit: _Assigned) -> None:
        shape = {
            "num_codes": self.num_codes,
            "patch_size": data.patch_size,
            "num_channels": data.num_channels,
            "space": self.space,
            "inertia": fit.inertia,
        }
        tensors = {"centres_KF": torch.from_numpy(fit.centres_KF), "counts_K": torch.from_numpy(fit.counts_K)}
        write_tokenizer(path, TokenizerRecord(tokenizer="kmeans", settings=shape, fitted_on=data.record), tensors)


@attrs.frozen(eq=False)
class _Assigned:
    """Centres with the number of patches of each, and the patches that are farthest from theirs."""

    centres_KF: Array
    counts_K: npt.NDArray[np.int64]
    farthest_PF: Array
    inertia: float


def _farthest(patches_PF: Array, distance_P: Array, most: int) -> tuple[Array, Array]:
    """Return at most ``most`` different patches with the largest distances above 0, the farthest first."""
    order_P = np.argsort(-distance_P, kind="stable")[: 4 * most]
    order_P = order_P[distance_P[order_P] > 0]
    _, first_P = np.unique(patches_PF[order_P], axis=0, return_index=True)
    order_P = order_P[np.sort(first_P)[:most]]
    return patches_PF[order_P], distance_P[order_P]
