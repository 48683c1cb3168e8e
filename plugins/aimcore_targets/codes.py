"""Codes of an image tokenizer as targets.

Shape suffixes: B batch, N patches, F values per patch, M scored positions, K codes, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import (
    Batch,
    Images,
    ImageTokenizer,
    PatchGrid,
    Problem,
    Target,
    TargetModule,
    View,
    built_tokenizer,
    component,
)
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import patchify, unpatchify
from aimcore.contracts.targets import Sees
from aimcore.io.locations import location_problems
from aimcore.io.stored_codes import StoredCodes


class CannotEncode(AimcoreError):
    """A tokenizer cannot encode the images of a batch."""


@component("codes", paper="arXiv:2401.08541, Table 3a; arXiv:2106.08254")
class Codes(Target):
    """The code that an image tokenizer gives each patch, with cross-entropy.

    The tokenizer reads the same crop as the trunk, in pixels from 0 to 1. If its codes stand for another number of
    pixels than a patch has, it reads a view of its own size: a dVAE with a total stride of 8 needs 128 px for the
    16 x 16 patches of an image of 224 px.
    """

    tokenizer: ImageTokenizer
    stored: str | None = None
    """Codes that ``aimcore tokenizer encode`` computed once: a zarr group, by path or URL. They are kept in memory, and
    found by the pixels of an image. So this works only if the images are rendered without random changes; the first
    other image is an error. None computes codes in every step."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and stored codes of a tokenizer without a file."""
        if self.stored is not None:
            yield from location_problems("stored", self.stored)
            if not isinstance(getattr(self.tokenizer, "sha256", None), str):
                yield Problem("stored", f"needs a tokenizer with a file, and {self.tokenizer.name!r} has none")

    @property
    def views(self) -> tuple[View, ...]:
        """The view of the tokenizer; none if it reads the patches as they are."""
        side = self.tokenizer.pixels_per_patch
        return () if side is None else (View(key=_key(side), pixels_per_patch=side),)

    @property
    def sees(self) -> Sees:
        """What the tokenizer sees."""
        return self.tokenizer.sees

    def build(self, patch_size: int, num_channels: int) -> CodesModule:
        """Build the tokenizer."""
        return CodesModule(self, patch_size, num_channels)

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """Return the number of codes."""
        return self.tokenizer.num_codes

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]``: cross-entropy in nats."""
        return functional.cross_entropy(predictions_MK, values_M, reduction="none")

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the built-in image tokenizers read files of the user's."""
        return ()


class CodesModule(TargetModule):
    """The module of :class:`Codes`."""

    in_checkpoints: ClassVar[bool] = True  # the tokenizer's own choice holds for its weights

    def __init__(self, config: Codes, patch_size: int, num_channels: int) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = built_tokenizer(config.tokenizer, patch_size, num_channels)
        sha256 = getattr(config.tokenizer, "sha256", "")
        self.stored = None if config.stored is None else StoredCodes(config.stored, sha256)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Tensor:
        """``[B, N]``: the code of each patch; arbitrary for padding.

        Raises:
            CannotEncode: images of different grids need a tokenizer that sees single patches.
            WrongCodes: codes are stored, but not those of an image of the batch.
        """
        patches_BNF = batch.images.patches_BNF
        if self.stored is None or patches_BNF.device.type == "meta":
            codes_BN: Tensor = self.tokenizer(*self._view(batch))
            return codes_BN
        names = batch.extras.get("identifiers") or map(str, batch.sample_numbers_B.tolist())
        return torch.from_numpy(self.stored.of(patches_BNF.cpu().numpy(), names)).to(patches_BNF.device)

    @torch.no_grad()
    def decoded(self, batch: Batch) -> Tensor:
        """``[B, N, F]``: the true codes, decoded."""
        return self._pixels(self(batch), batch)

    @torch.no_grad()
    def drawn(self, predictions_BNK: Tensor, predicted_BN: Tensor, batch: Batch) -> Tensor:
        """``[B, N, F]``: the most likely codes, decoded together with the true codes of all other patches.

        Codes of normalised patches take mean and variance of the true patches.
        """
        return self._pixels(torch.where(predicted_BN, predictions_BNK.argmax(-1), self(batch)), batch)

    def _pixels(self, codes_BN: Tensor, batch: Batch) -> Tensor:
        """``[B, N, F]``: decoded codes as patches of the trunk, normalised as its images are."""
        view_BCHW, grid = self._view(batch)
        decoded_BCHW = self.tokenizer.decode(codes_BN, grid, view_BCHW)
        images = batch.images
        size = grid.rows * images.patch_size, grid.columns * images.patch_size
        if decoded_BCHW.shape[-2:] != size:
            decoded_BCHW = functional.interpolate(decoded_BCHW, size, mode="bilinear", antialias=True)
        patches_BNF = patchify(decoded_BCHW, images.patch_size).to(images.patches_BNF.dtype)
        return images.normalized(patches_BNF.clamp(0, 1))

    def _view(self, batch: Batch) -> tuple[Tensor, PatchGrid]:
        """What the tokenizer reads, and the grid of its codes."""
        side = self.config.tokenizer.pixels_per_patch
        images = batch.images
        if side is not None:
            return batch.views[_key(side)], images.grid
        grid = _grid(images, self.config.tokenizer)
        return unpatchify(images.unit_patches_BNF, grid, images.patch_size), grid


def _key(side: int) -> str:
    return f"codes_of_{side}_px"


def _grid(images: Images, tokenizer: ImageTokenizer) -> PatchGrid:
    """The grid of the images, or one row of all patches if images of different grids are padded."""
    length = images.patches_BNF.shape[1]
    if images.is_uniform and images.grid.num_patches == length:
        return images.grid
    if tokenizer.sees != "patch":
        raise CannotEncode(
            f"tokenizer {tokenizer.name!r} reads whole images, and the images of this batch have different grids: "
            "train on square crops, or with a tokenizer that sees single patches"
        )
    return PatchGrid(1, length)
