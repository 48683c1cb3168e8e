"""Rendering of a batch's images: square crops with their views, or images in their own aspect ratio.

Each image is rendered as soon as it is read, and then released: loading a batch keeps one decoded image in memory.

Shape suffixes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import attrs
from torch import Tensor

from aimcore.contracts.batches import View
from aimcore.contracts.images import Images, images_of
from aimcore.data.native import fitted_size, pack
from aimcore.data.transforms import Crop, CropDraws, normalize, render_crop, render_evaluation, to_channels, to_unit
from aimcore.experiment import Data

Rendering = tuple[Tensor, ...]
"""One image as ``uint8 [C, H, W]``, in each required size."""


class Rendered(NamedTuple):
    """A batch's images, and the views by key."""

    images: Images
    views: dict[str, Tensor]


class Renderer(ABC):
    """Renders images one by one, and packs the renderings into a batch."""

    data: Data

    def for_training(self, image_CHW: Tensor, draws: CropDraws, place: int) -> Rendering:
        """The crop that was drawn for sample ``place`` of the batch, of an image ``uint8 [C, H, W]``."""
        return _owned(self._cropped(self._with_channels(image_CHW), draws, place))

    def for_evaluation(self, image_CHW: Tensor) -> Rendering:
        """Render the image for evaluation."""
        return _owned(self._whole(self._with_channels(image_CHW)))

    @abstractmethod
    def together(self, renderings: Sequence[Rendering]) -> Rendered:
        """Pack renderings into a batch."""

    @abstractmethod
    def _cropped(self, image_CHW: Tensor, draws: CropDraws, place: int) -> Rendering: ...

    @abstractmethod
    def _whole(self, image_CHW: Tensor) -> Rendering: ...

    def _with_channels(self, image_CHW: Tensor) -> Tensor:
        return to_channels(image_CHW, len(self.data.mean))


def _owned(rendering: Rendering) -> Rendering:
    """Copy renderings, because a view of the decoded image would keep the whole image in memory."""
    return tuple(image.clone() for image in rendering)


@attrs.frozen
class Square(Renderer):
    """Square images of one size; views are (key, size in pixels, normalise)."""

    data: Data
    patch_size: int
    views: tuple[tuple[str, int, bool], ...]

    @classmethod
    def of(cls, data: Data, patch_size: int, views: Sequence[View]) -> Square:
        """Render a square crop of ``data.image_size`` pixels."""
        patches = data.image_size // patch_size
        return cls(data, patch_size, tuple((v.key, patches * v.pixels_per_patch, v.normalize) for v in views))

    def together(self, renderings: Sequence[Rendering]) -> Rendered:
        """Return images and views, normalised as requested."""
        mean, std = self.data.mean, self.data.std
        unit = {size: to_unit(images) for size, images in zip(self._sizes, zip(*renderings, strict=True), strict=True)}
        images = images_of(normalize(unit[self.data.image_size], mean, std), self.patch_size)
        views = {key: normalize(unit[size], mean, std) if normal else unit[size] for key, size, normal in self.views}
        return Rendered(images, views)

    def _cropped(self, image_CHW: Tensor, draws: CropDraws, place: int) -> Rendering:
        crop = draws.crop(place, image_CHW.shape[1], image_CHW.shape[2])
        return tuple(render_crop(image_CHW, crop, size) for size in self._sizes)

    def _whole(self, image_CHW: Tensor) -> Rendering:
        return tuple(render_evaluation(image_CHW, size, self.data.eval_crop) for size in self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Return every required size once."""
        return tuple(sorted({self.data.image_size, *(size for _, size, _ in self.views)}))


@attrs.frozen
class Native(Renderer):
    """Images in their own aspect ratio, resized to at most ``area`` patches and padded to that number; no views."""

    data: Data
    patch_size: int
    area: int

    def together(self, renderings: Sequence[Rendering]) -> Rendered:
        """Patches up to ``area``: what fills them up is part of the image, unless ``data.native`` masks it."""
        padding_is_image = self.data.native is None or self.data.native.padding == "image"
        images = [image for (image,) in renderings]
        return Rendered(pack(images, self.area, self.data, self.patch_size, padding_is_image=padding_is_image), {})

    def _cropped(self, image_CHW: Tensor, draws: CropDraws, place: int) -> Rendering:
        return self._fitted(image_CHW, draws.whole(place, image_CHW.shape[1], image_CHW.shape[2]))

    def _whole(self, image_CHW: Tensor) -> Rendering:
        return self._fitted(image_CHW, Crop(0, 0, image_CHW.shape[1], image_CHW.shape[2]))

    def _fitted(self, image_CHW: Tensor, crop: Crop) -> Rendering:
        return (render_crop(image_CHW, crop, fitted_size(crop.height, crop.width, self.patch_size, self.area)),)


def renderer_of(data: Data, patch_size: int, area: int | None = None, views: Sequence[View] = ()) -> Renderer:
    """Return a renderer of squares with views, or, with an ``area`` in patches, of images in their own aspect ratio."""
    return Square.of(data, patch_size, views) if area is None else Native(data, patch_size, area)
