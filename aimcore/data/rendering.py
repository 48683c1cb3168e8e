"""Rendering of a batch's images: square crops with their views, or images in their own aspect ratio.

Each sample is rendered as soon as it is read, and then released: loading a batch keeps one decoded sample in memory.

Shape suffixes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.batches import Sample, View
from aimcore.contracts.images import Images, PatchGrid, PixelStatistics
from aimcore.contracts.randomness import EVALUATION_SEED
from aimcore.data.extras import aligned_image
from aimcore.data.native import fitted_size, pack
from aimcore.data.transforms import (
    Crop,
    CropDraws,
    normalize,
    normalize_patches,
    render_crop,
    render_evaluation,
    to_channels,
    to_patches,
    to_unit,
)
from aimcore.experiment import Data

Rendering = tuple[Tensor, ...]
"""One sample as integers ``[C, H, W]``: what the trunk reads, then the images of views that show other pixels."""
Draws = Mapping[str | None, CropDraws]
"""What is random about the crops of a batch, by their names; None is the crop of ``batch.images``."""


class Rendered(NamedTuple):
    """A batch's images, and the views by key."""

    images: Images
    views: dict[str, Tensor]


class _Piece(NamedTuple):
    """Pixels that are rendered once, whatever the number of views that show them."""

    crop: str | None
    of: str | None
    side: int


@attrs.frozen
class Renderer(ABC):
    """Renders samples one by one, and packs the renderings into a batch."""

    data: Data
    patch_size: int
    views: tuple[View, ...]

    def draws(self, seed: int, sample_numbers: npt.ArrayLike) -> Draws:
        """Draw all that is random about the crops of the samples ``[B]`` in training."""
        return {None: CropDraws.of(self.data.augmentation, seed, sample_numbers), **self._own(seed, sample_numbers)}

    def evaluation_draws(self, sample_numbers: npt.ArrayLike) -> Draws:
        """Draw the crops that views have of their own, the same in every run."""
        return self._own(EVALUATION_SEED, sample_numbers)

    def for_training(self, sample: Sample, draws: Draws, place: int) -> Rendering:
        """Render the crops that were drawn for ``sample``, which has index ``place`` in the batch."""
        image_CHW = self._with_channels(sample.image)
        height, width = image_CHW.shape[1:]
        crops = {name: drawn.crop(place, height, width) for name, drawn in draws.items()}
        crops[None] = self._shared(draws, place, height, width)
        return _owned((self._cropped(image_CHW, crops[None]), *self._further(sample, image_CHW, crops)))

    def for_evaluation(self, sample: Sample, draws: Draws | None = None, place: int = 0) -> Rendering:
        """Render a sample for evaluation: its centre or all of it, and views with a crop of their own as drawn."""
        image_CHW = self._with_channels(sample.image)
        height, width = image_CHW.shape[1:]
        crops = {name: drawn.crop(place, height, width) for name, drawn in (draws or {}).items()}
        return _owned((self._whole(image_CHW), *self._further(sample, image_CHW, crops)))

    def together(self, renderings: Sequence[Rendering]) -> Rendered:
        """Pack renderings into a batch."""
        rendered = self.packed(renderings)
        return rendered._replace(images=normalized(rendered.images))

    @abstractmethod
    def packed(self, renderings: Sequence[Rendering]) -> Rendered:
        """Pack renderings into a batch whose images may be uint8, for :func:`normalized`.

        Bytes take a quarter of the time and memory of floats on the way from a data worker to the training.
        """

    @abstractmethod
    def _shared(self, draws: Draws, place: int, height: int, width: int) -> Crop:
        """The crop of ``batch.images``."""

    @abstractmethod
    def _cropped(self, image_CHW: Tensor, crop: Crop) -> Tensor: ...

    @abstractmethod
    def _whole(self, image_CHW: Tensor) -> Tensor: ...

    @abstractmethod
    def _side(self, view: View) -> int: ...

    def _further(self, sample: Sample, image_CHW: Tensor, crops: Mapping[str | None, Crop]) -> Iterator[Tensor]:
        """The pieces of all views; without a crop, the middle of the image."""
        for piece, view in self._pieces().items():
            picks = piece.of is not None
            whole_CHW = aligned_image(sample, view) if picks else image_CHW
            crop = crops.get(piece.crop)
            if crop is None:
                yield render_evaluation(whole_CHW, piece.side, self.data.eval_crop, picks=picks)
            else:
                yield render_crop(whole_CHW, crop, piece.side, picks=picks, fill=self._fill)

    def _rendered_views(self, renderings: Sequence[Rendering]) -> dict[str, Tensor]:
        """Views by key, from the pieces of every sample."""
        further = [pieces for _, *pieces in renderings]
        pieces = {}
        if self._main is not None and self._main in map(self._piece, self.views):
            pieces[self._main] = to_unit([main for main, *_ in renderings])
        for piece, images in zip(self._pieces(), zip(*further, strict=True), strict=True):
            pieces[piece] = to_unit(images) if piece.of is None else torch.stack(images).long()
        mean, std = self.data.mean, self.data.std
        found = {}
        for view in self.views:
            pixels_BCHW = pieces[self._piece(view)]
            found[view.key] = normalize(pixels_BCHW, mean, std) if view.normalize else pixels_BCHW
        return found

    def _pieces(self) -> dict[_Piece, View]:
        """What is rendered besides the images, each with a view that shows it."""
        pieces = {self._piece(view): view for view in self.views}
        return {piece: view for piece, view in pieces.items() if piece != self._main}

    def _piece(self, view: View) -> _Piece:
        return _Piece(view.crop, view.of, self._side(view))

    @property
    def _main(self) -> _Piece | None:
        """The piece that the images are, if views may show it too."""
        return None

    def _own(self, seed: int, sample_numbers: npt.ArrayLike) -> dict[str | None, CropDraws]:
        found: dict[str | None, CropDraws] = {}
        for view in self.views:
            if view.crop is not None and view.crop not in found:
                scale = view.crop_scale or self.data.augmentation.crop_scale
                augmentation = attrs.evolve(cast(Any, self.data.augmentation), crop_scale=scale)
                found[view.crop] = CropDraws.of(augmentation, seed, np.asarray(sample_numbers), name=view.crop)
        return found

    @property
    def _fill(self) -> tuple[float, ...]:
        """What RandAugment moves in from outside: the mean of the images, 0 after normalisation."""
        return tuple(min(255.0, max(0.0, round(255 * mean))) for mean in self.data.mean)

    def _with_channels(self, image_CHW: Tensor) -> Tensor:
        return to_channels(image_CHW, len(self.data.mean))


def normalized(images: Images) -> Images:
    """Return images whose patches are float32, normalised by their statistics if they are uint8."""
    if images.patches_BNF.dtype != torch.uint8:
        return images
    assert images.statistics is not None
    return attrs.evolve(images, patches_BNF=normalize_patches(images.patches_BNF, *images.statistics))


def _owned(rendering: Rendering) -> Rendering:
    """Copy renderings, because a view of the decoded image would keep the whole image in memory."""
    return tuple(image.clone() for image in rendering)


@attrs.frozen
class Square(Renderer):
    """Square images of one size."""

    @classmethod
    def of(cls, data: Data, patch_size: int, views: Sequence[View]) -> Square:
        """Render a square crop of ``data.image_size`` pixels."""
        return cls(data, patch_size, tuple(views))

    def packed(self, renderings: Sequence[Rendering]) -> Rendered:
        """Return images as uint8, and views, normalised as requested."""
        patches_BNF = to_patches([image for image, *_ in renderings], self.patch_size)
        side = self.data.image_size // self.patch_size
        grids, statistics = (PatchGrid(side, side),) * len(renderings), PixelStatistics(self.data.mean, self.data.std)
        images = Images(patches_BNF, grids, self.patch_size, statistics=statistics)
        return Rendered(images, self._rendered_views(renderings))

    def _shared(self, draws: Draws, place: int, height: int, width: int) -> Crop:
        return draws[None].crop(place, height, width)

    def _cropped(self, image_CHW: Tensor, crop: Crop) -> Tensor:
        return render_crop(image_CHW, crop, self.data.image_size, fill=self._fill)

    def _whole(self, image_CHW: Tensor) -> Tensor:
        return render_evaluation(image_CHW, self.data.image_size, self.data.eval_crop)

    def _side(self, view: View) -> int:
        if view.side is not None:
            return view.side
        assert view.pixels_per_patch is not None
        return self.data.image_size // self.patch_size * view.pixels_per_patch

    @property
    def _main(self) -> _Piece:
        return _Piece(None, None, self.data.image_size)


@attrs.frozen
class Native(Renderer):
    """Images in their own aspect ratio, resized to at most ``area`` patches and padded to that number.

    Their views are squares of a crop of their own: what shows the same pixels as the images has no common size.
    """

    area: int

    def packed(self, renderings: Sequence[Rendering]) -> Rendered:
        """Patches up to ``area``: what fills them up is part of the image, unless ``data.native`` masks it."""
        padding_is_image = self.data.native is None or self.data.native.padding == "image"
        images = [image for image, *_ in renderings]
        packed = pack(images, self.area, self.data, self.patch_size, padding_is_image=padding_is_image)
        return Rendered(packed, self._rendered_views(renderings))

    def _shared(self, draws: Draws, place: int, height: int, width: int) -> Crop:
        return draws[None].whole(place, height, width)

    def _cropped(self, image_CHW: Tensor, crop: Crop) -> Tensor:
        size = fitted_size(crop.height, crop.width, self.patch_size, self.area)
        return render_crop(image_CHW, crop, size, fill=self._fill)

    def _whole(self, image_CHW: Tensor) -> Tensor:
        return self._cropped(image_CHW, Crop(0, 0, image_CHW.shape[1], image_CHW.shape[2]))

    def _side(self, view: View) -> int:
        assert view.side is not None
        return view.side


def renderer_of(data: Data, patch_size: int, area: int | None = None, views: Sequence[View] = ()) -> Renderer:
    """Return a renderer of squares, or, with an ``area`` in patches, of images in their own aspect ratio."""
    return Square.of(data, patch_size, views) if area is None else Native(data, patch_size, tuple(views), area)
