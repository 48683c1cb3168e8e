"""k-means on patches: the code of a patch is the nearest of K centres.

Shape suffixes: B batch, C channels, H W pixels, N patches, P patches of all images, F values per patch, K codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from aimcore import (
    ImageTokenizerModule,
    PatchGrid,
    Problem,
    TokenizerFit,
    at_least,
    component,
    settings,
)
from aimcore.contracts import limits
from aimcore.contracts.component import Checked
from aimcore.contracts.images import patchify, unpatchify
from aimcore_tokenizers.clusters import Space, into_space, nearest, out_of_space
from aimcore_tokenizers.fitted import FittedTokenizer, WrongPatches
from aimcore_tokenizers.kmeans_fitting import KMeansFit


@settings
class KMeansShape(Checked):
    """What a file of centres says about them."""

    num_codes: int
    patch_size: int
    num_channels: int
    space: Space
    inertia: float
    """Mean squared distance between a patch and its centre, per patch, over the images of the fit."""

    def problems(self) -> Iterable[Problem]:
        """Yield numbers that no centres have."""
        yield from at_least("num_codes", self.num_codes, 1, limits.CLASSES)
        yield from at_least("patch_size", self.patch_size, 1, limits.IMAGE_SIDE)
        yield from at_least("num_channels", self.num_channels, 1, limits.CHANNELS)


@component("kmeans", paper="arXiv:2401.08541, Table 3a")
class KMeans(FittedTokenizer):
    """The nearest of K centres of patches; ``aimcore tokenizer fit --name kmeans`` fits them.

    The paper publishes neither K nor the space nor the images of its k-means: all are settings of
    :class:`~aimcore_tokenizers.kmeans_fitting.KMeansFit`. Distances are those of scikit-learn: squared Euclidean, and
    the first of several nearest centres.
    """

    fitting: ClassVar[type[TokenizerFit] | None] = KMeansFit

    @property
    def num_codes(self) -> int:
        """K, from the file."""
        return self.shape(KMeansShape).num_codes

    def build(self, patch_size: int, num_channels: int) -> KMeansModule:
        """Read the centres.

        Raises:
            WrongPatches: they are centres of other patches.
            TokenizerFileError: the file is not the recorded one, or is damaged.
        """
        shape = self.shape(KMeansShape)
        if (patch_size, num_channels) != (shape.patch_size, shape.num_channels):
            raise WrongPatches(
                f"{self.path} has centres of patches of {shape.patch_size} px with {shape.num_channels} channels, and "
                f"the images have patches of {patch_size} px with {num_channels}: fit a tokenizer to such patches with "
                "'aimcore tokenizer fit'"
            )
        tensors, length = self.tensors(), shape.patch_size**2 * shape.num_channels
        self.require_tensors(tensors, {"centres_KF": (shape.num_codes, length), "counts_K": (shape.num_codes,)})
        return KMeansModule(shape.space, shape.patch_size, tensors["centres_KF"])


class KMeansModule(ImageTokenizerModule):
    """The module of :class:`KMeans`."""

    in_checkpoints: ClassVar[bool] = False
    centres_KF: Tensor

    def __init__(self, space: Space, patch_size: int, centres_KF: Tensor) -> None:
        super().__init__()
        self.space: Space = space
        self.patch_size = patch_size
        device = torch.get_default_device()
        self.register_buffer("centres_KF", centres_KF.float().to(device))

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        """``[B, N]``: the nearest centre of each patch."""
        patches_BNF = patchify(view_BCHW.to(self.centres_KF.dtype), self.patch_size)
        codes_P = nearest(into_space(patches_BNF, self.space).flatten(0, 1), self.centres_KF)
        return codes_P.reshape(patches_BNF.shape[:2])

    def decode(self, codes_BN: Tensor, grid: PatchGrid, view_BCHW: Tensor | None = None) -> Tensor:
        """``[B, C, H, W]``: centres as patches.

        Normalised centres take mean and variance of the patches of the true view; without it, those of a patch of
        medium grey.
        """
        centres_BNF = self.centres_KF[codes_BN]
        true_BNF = None if view_BCHW is None else patchify(view_BCHW.to(centres_BNF.dtype), self.patch_size)
        return unpatchify(out_of_space(centres_BNF, self.space, true_BNF), grid, self.patch_size)
