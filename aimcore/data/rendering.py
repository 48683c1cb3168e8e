"""What is made of the images of a batch: square crops with their views, or images in their own aspect ratio.

Shape suffixes: B batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import attrs
from torch import Tensor

from aimcore.data.native import fitted_size, pack
from aimcore.data.transforms import Crop, normalize, render_crop, render_evaluation, to_unit
from aimcore.experiment import Data
from aimcore.patches import images_of
from aimcore.values import Images, View


class Rendered(NamedTuple):
    """A batch's images, and the views by key."""

    images: Images
    views: dict[str, Tensor]


@attrs.frozen
class Square:
    """Square images of one size; views are (key, size in pixels, normalise)."""

    data: Data
    patch_size: int
    views: tuple[tuple[str, int, bool], ...]

    @classmethod
    def of(cls, data: Data, patch_size: int, views: Sequence[View]) -> Square:
        """The renderings of a square crop of ``data.image_size`` pixels."""
        patches = data.image_size // patch_size
        return cls(data, patch_size, tuple((v.key, patches * v.pixels_per_patch, v.normalize) for v in views))

    def cropped(self, images: Sequence[Tensor], crops: Sequence[Crop]) -> Rendered:
        """The crops of ``uint8 [C, H, W]`` images."""
        pairs = list(zip(images, crops, strict=True))
        return self._of({size: [render_crop(image, crop, size) for image, crop in pairs] for size in self._sizes})

    def centred(self, images: Sequence[Tensor]) -> Rendered:
        """The centres of ``uint8 [C, H, W]`` images, as evaluation sees them."""
        crop = self.data.eval_crop
        return self._of({size: [render_evaluation(image, size, crop) for image in images] for size in self._sizes})

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Every size that is needed, once."""
        return tuple(sorted({self.data.image_size, *(size for _, size, _ in self.views)}))

    def _of(self, by_size: dict[int, list[Tensor]]) -> Rendered:
        mean, std = self.data.mean, self.data.std
        unit = {size: to_unit(images) for size, images in by_size.items()}
        images = images_of(normalize(unit[self.data.image_size], mean, std), self.patch_size)
        views = {key: normalize(unit[size], mean, std) if normal else unit[size] for key, size, normal in self.views}
        return Rendered(images, views)


@attrs.frozen
class Native:
    """Images in their own aspect ratio; they have no views."""

    data: Data
    patch_size: int
    padding_is_image: bool

    def fitted(self, images: Sequence[Tensor], area: int, crops: Sequence[Crop] | None = None) -> Rendered:
        """``uint8 [C, H, W]`` images, or their crops, resized to fit in ``area`` patches and filled up to that."""
        crops = crops or [Crop(0, 0, image.shape[1], image.shape[2]) for image in images]
        fitted = [
            render_crop(image, crop, fitted_size(crop.height, crop.width, self.patch_size, area))
            for image, crop in zip(images, crops, strict=True)
        ]
        return Rendered(pack(fitted, area, self.data, self.patch_size, padding_is_image=self.padding_is_image), {})
