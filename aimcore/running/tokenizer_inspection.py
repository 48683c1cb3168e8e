"""Measurements of an image tokenizer on held-out images: how it uses its codes, and what it reconstructs.

Shape suffixes: B batch, C channels, H W pixels, N patches, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.assembly import built_tokenizer
from aimcore.contracts.batches import Batch, View
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import PatchGrid, unpatchify
from aimcore.contracts.tokenizers import ImageTokenizer
from aimcore.data.loading import evaluation_batches, train_steps
from aimcore.io.stored_codes import keys_of, write_codes
from aimcore.running.tokenizer_fitting import Progress, TokenizerImages

_BATCH = 32
_VIEW = "tokenizer"


class RandomTransform(AimcoreError):
    """Codes are to be stored, and images are rendered differently in every epoch."""


@attrs.frozen(eq=False)
class CodeUsage:
    """How often each code is used.

    >>> usage = CodeUsage(torch.tensor([2, 2, 0, 4]))
    >>> usage.num_used, round(usage.entropy / math.log(2), 3), round(usage.perplexity, 3)
    (3, 1.5, 2.828)
    """

    counts_K: Tensor

    @property
    def num_used(self) -> int:
        """Number of codes that occur."""
        return int((self.counts_K > 0).sum())

    @property
    def entropy(self) -> float:
        """Entropy of the marginal distribution of codes in nats: the loss of a model that knows nothing else."""
        counts_K = self.counts_K.double()
        share_K = counts_K / counts_K.sum()
        return float(torch.special.entr(share_K).sum())

    @property
    def perplexity(self) -> float:
        """exp(entropy): the number of equally frequent codes with the same entropy."""
        return math.exp(self.entropy)


@attrs.frozen(eq=False)
class Inspection:
    """What was measured."""

    num_images: int
    usage: CodeUsage
    error: float | None
    """Mean squared error of reconstructed pixels from 0 to 1; None if codes cannot be decoded."""
    originals_BHWC: np.ndarray[Any, Any]
    """uint8: the views of the first images."""
    decoded_BHWC: np.ndarray[Any, Any] | None


def inspect_tokenizer(
    tokenizer: ImageTokenizer, images: TokenizerImages, *, num_images: int, num_shown: int, progress: Progress
) -> Inspection:
    """Encode and decode the first ``num_images`` of the validation images.

    Raises:
        AimcoreError: the images cannot be read, or the tokenizer is not made for them.
    """
    data, source = images.data, images.data.validation.open()
    module = built_tokenizer(tokenizer, images.patch_size, len(data.mean))
    side = tokenizer.pixels_per_patch
    views = () if side is None else (View(key=_VIEW, pixels_per_patch=side),)
    wanted = np.unique(np.linspace(0, len(source) - 1, min(num_images, len(source))).round().astype(np.int64))
    batches = evaluation_batches(
        cast(Any, data), source, patch_size=images.patch_size, views=views, batch_size=_BATCH, indices=wanted
    )
    counts_K = torch.zeros(tokenizer.num_codes, dtype=torch.int64)
    shown: list[tuple[Tensor, Tensor | None]] = []
    done, squares, values = 0, 0.0, 0
    for batch in batches:
        view_BCHW, grid = _view(batch, side)
        codes_BN, decoded_BCHW = _coded(module, view_BCHW, grid)
        counts_K += codes_BN.flatten().bincount(minlength=len(counts_K))
        if decoded_BCHW is not None:
            squares += float((decoded_BCHW.clamp(0, 1) - view_BCHW).double().square().sum())
            values += view_BCHW.numel()
        if sum(len(view) for view, _ in shown) < num_shown:
            shown.append((view_BCHW, decoded_BCHW))
        done += len(view_BCHW)
        progress("encoding images", done, len(wanted))
    if not done:
        raise AimcoreError(f"none of the {len(wanted)} images can be read")
    originals, decoded = zip(*shown, strict=True)
    return Inspection(
        num_images=done,
        usage=CodeUsage(counts_K),
        error=squares / values if values else None,
        originals_BHWC=_uint8(torch.cat(originals)[:num_shown]),
        decoded_BHWC=None if decoded[0] is None else _uint8(torch.cat(decoded)[:num_shown]),
    )


def encode_images(tokenizer: ImageTokenizer, images: TokenizerImages, url: str, progress: Progress) -> int:
    """Store the codes of all training and validation images in a zarr group; return the number of different images.

    Training images are rendered as in training, validation images as in validation.

    Raises:
        RandomTransform: training crops are random, so that their codes differ in every epoch.
        AimcoreError: the images cannot be read, or the tokenizer is not made for them.
    """
    data = images.data
    if data.augmentation.is_random:
        raise RandomTransform(
            "codes can be stored only if training images are rendered without random changes, and data.augmentation "
            "draws some: set data.augmentation to crop_scale (1, 1), crop_ratio (1, 1), flip_probability 0, without "
            "colour jitter and RandAugment, or compute codes in every step"
        )
    module = built_tokenizer(tokenizer, images.patch_size, len(data.mean))
    side = tokenizer.pixels_per_patch

    def entries() -> Iterator[tuple[list[bytes], np.ndarray[Any, Any]]]:
        for doing, total, batches in _all_batches(images, side):
            done = 0
            for batch in batches:
                codes_BN = module(*_view(batch, side))
                yield keys_of(batch.images.patches_BNF.numpy()), codes_BN.numpy()
                done += len(codes_BN)
                progress(doing, min(done, total), total)

    with torch.no_grad():
        return write_codes(url, str(getattr(tokenizer, "sha256", "")), entries())


def _all_batches(images: TokenizerImages, side: int | None) -> Iterator[tuple[str, int, Iterator[Batch]]]:
    """Yield the training and the validation images: what is encoded, their number, and their batches."""
    train, validation = images.data.train.open(), images.data.validation.open()
    views = () if side is None else (View(key=_VIEW, pixels_per_patch=side),)
    data: Any = attrs.evolve(cast(Any, images.data), batch_size=_BATCH)
    size = images.patch_size
    steps = train_steps(data, train, patch_size=size, views=views, seed=0, num_steps=-(-len(train) // _BATCH))
    yield "encoding training images", len(train), (batch for step in steps for batch in step)
    held_out = evaluation_batches(data, validation, patch_size=size, views=views, batch_size=_BATCH)
    yield "encoding validation images", len(validation), held_out


def _view(batch: Batch, side: int | None) -> tuple[Tensor, PatchGrid]:
    images = batch.images
    if side is not None:
        return batch.views[_VIEW], images.grid
    return unpatchify(images.unit_patches_BNF, images.grid, images.patch_size), images.grid


@torch.no_grad()
def _coded(module: Any, view_BCHW: Tensor, grid: PatchGrid) -> tuple[Tensor, Tensor | None]:
    codes_BN = module(view_BCHW, grid)
    try:
        return codes_BN, module.decode(codes_BN, grid, view_BCHW)
    except NotImplementedError:
        return codes_BN, None


def _uint8(pixels_BCHW: Tensor) -> np.ndarray[Any, Any]:
    pixels_BHWC = (pixels_BCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return np.asarray(pixels_BHWC.numpy())
