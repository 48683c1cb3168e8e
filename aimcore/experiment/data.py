"""Data settings of an experiment: sources, batches and image transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, floor
from typing import Any, Literal

import attrs

from aimcore.contracts import limits
from aimcore.contracts.augmentations import Augmentation
from aimcore.contracts.component import Checked, at_least, settings, within
from aimcore.contracts.errors import Problem
from aimcore.contracts.images import PixelStatistics
from aimcore.contracts.sources import Source

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MOST_WEIGHT = 10**9
_MOST_PIXEL = 10**6
"""Largest mean or standard deviation, where pixels lie in [0, 1]."""
_MOST_LOG2_AREA = limits.PATCHES.bit_length() - 1


@settings
class NativeResolution(Checked):
    """Training at many resolutions and the images' own aspect ratios (arXiv:2411.14402, section 2.4).

    For each step an area A = 2^n is drawn, n from a standard normal truncated to [-1, 1] and mapped linearly to
    ``log2_area``, and rounded down to whole patches. The step takes B = C / A images, rounded down to a multiple of
    ``images_multiple_of``, so that B x A never exceeds ``patches_per_step`` (C): all processes and micro-batches of a
    step have the same area and equally many images. Each image is resized (bicubic, its aspect ratio kept, up as well
    as down) to the most patches that fit in A. Nothing is cropped; flips and colours are those of ``augmentation``.
    Zeros, after normalisation, fill its right and bottom edges up to whole patches, and then patches up to A.
    """

    patches_per_step: int
    """The constant C, over all ranks and accumulation steps; the paper does not publish its own. No step has more."""
    images_multiple_of: int = 8
    """What the number of images of a step is a multiple of, and what processes x accumulation steps must divide: up to
    there, any number of processes sees the same images in the same steps."""
    log2_area: tuple[float, float] = (7.0, 12.0)
    """Range of n: from 128 to 4,096 patches per image."""
    padding: Literal["image", "masked"] = "image"
    """What fills images up to the area: zeros that are part of the image as in the paper, which masks nothing; or whole
    patches of padding that no real patch sees, and that are never predicted (an option of this project's)."""

    @property
    def typical_area(self) -> int:
        """The median of the areas that steps have, in patches."""
        return floor(2 ** (sum(self.log2_area) / 2))

    @property
    def smallest_length(self) -> int:
        """The fewest patches that an image has in any step, without what is masked.

        Half the area, rounded down, is always filled: in the worst case an image is one row, of which two do not fit.
        """
        area = floor(2 ** self.log2_area[0])
        return area if self.padding == "image" else max(1, area // 2)

    def problems(self) -> Iterable[Problem]:
        """Yield why the smallest number of images does not fit into a step; the largest area counts too."""
        low, high = self.log2_area
        yield from at_least("images_multiple_of", self.images_multiple_of, 1, limits.BATCH)
        if not 0 <= low <= high <= _MOST_LOG2_AREA:
            yield Problem(
                "log2_area", f"must be two exponents 0 <= low <= high <= {_MOST_LOG2_AREA}, got {self.log2_area}"
            )
        elif self.patches_per_step > limits.BATCH * floor(2**low):
            most = limits.BATCH * floor(2**low)
            yield Problem(
                "patches_per_step",
                f"must be at most {most}, {limits.BATCH} images of the smallest area, got {self.patches_per_step}",
            )
        elif self.patches_per_step < self.images_multiple_of * floor(2**high):
            yield Problem(
                "patches_per_step",
                f"must hold {self.images_multiple_of} images (images_multiple_of) of the largest area, 2^{high:g} "
                f"patches, got {self.patches_per_step}",
            )


def statistics_of(source: object) -> PixelStatistics:
    """Return the pixel statistics of a source, or ImageNet's if it has none."""
    own = getattr(source, "statistics", None)  # types are checked later
    return own if isinstance(own, PixelStatistics) else PixelStatistics(IMAGENET_MEAN, IMAGENET_STD)


def _mean(data: Any) -> tuple[float, ...]:
    return statistics_of(data.train).mean


def _std(data: Any) -> tuple[float, ...]:
    return statistics_of(data.train).std


@settings
class Data(Checked):
    """Sources, batches and image transforms of a run."""

    train: Source
    """Images to train on; with labels, also what probes train on."""
    validation: Source
    """Images that are never trained on: the validation loss uses them, and probes are tested on them."""
    probe_train: Source | None = None
    """Labelled images that probes train on, where that is not ``train``."""
    probe_test: Source | None = None
    """Labelled images that probes are tested on, where that is not ``validation``."""
    batch_size: int
    """Samples per optimiser step, over all ranks and accumulation steps."""
    image_size: int = 224
    """Side of the square crop, in pixels."""
    augmentation: Augmentation = Augmentation()
    eval_crop: float = 0.875
    """Evaluation resizes the short side to ceil(image_size / eval_crop), bicubic, and crops the centre."""
    mean: tuple[float, ...] = attrs.field(default=attrs.Factory(_mean, takes_self=True))
    """Mean that is subtracted from pixels in [0, 1], per channel; by default the mean of ``train``
    (``Source.statistics``), else ImageNet's. Recipes record the numbers."""
    std: tuple[float, ...] = attrs.field(default=attrs.Factory(_std, takes_self=True))
    """Standard deviation that pixels are divided by afterwards; it has the same default as ``mean``."""
    caption_weights: Mapping[str, float] | None = None
    """Relative frequency of each kind of caption in training; kinds that are not named are never read. None reads all
    kinds of a sample equally often."""
    native: NativeResolution | None = None
    """Train at native resolutions and aspect ratios, not on square crops: then ``batch_size`` and the crops of
    ``augmentation`` have no effect, and ``image_size`` is that of validation and probing."""
    num_workers: int = 0
    """Data processes per rank; 0 loads in a thread of the training process."""
    max_unreadable: int = 100
    """Number of unreadable images that never stop a run."""
    max_unreadable_share: float = 0.01
    """A larger number stops the run if it is also a larger share than this of all images read. Each process counts from
    its start. A sample without a caption of the configured kinds is unreadable too."""

    def problems(self) -> Iterable[Problem]:
        """Yield counts that are not positive, and means and deviations of different lengths."""
        yield from at_least("batch_size", self.batch_size, 1, limits.BATCH)
        yield from at_least("image_size", self.image_size, 1, limits.IMAGE_SIDE)
        yield from within("eval_crop", self.eval_crop, 0.01, 1)
        if self.eval_crop >= 0.01 and self.image_size / self.eval_crop > limits.IMAGE_SIDE:
            side = ceil(self.image_size / self.eval_crop)
            yield Problem(
                "eval_crop", f"would resize the short side to {side} px, and {limits.IMAGE_SIDE} are the most: raise it"
            )
        yield from at_least("num_workers", self.num_workers, 0, limits.PROCESSES)
        yield from at_least("max_unreadable", self.max_unreadable, 0, limits.IMAGES)
        yield from within("max_unreadable_share", self.max_unreadable_share, 0, 1)
        weights = {} if self.caption_weights is None else self.caption_weights
        if self.caption_weights is not None and not (all(v >= 0 for v in weights.values()) and any(weights.values())):
            yield Problem("caption_weights", f"must be null or weights of 0 and more, not all 0, got {dict(weights)}")
        for kind, weight in weights.items():
            if weight > _MOST_WEIGHT:
                yield Problem(f"caption_weights.{kind}", f"must be at most {_MOST_WEIGHT}, got {weight}")
        if len(self.mean) > limits.CHANNELS:
            yield Problem("mean", f"must have at most {limits.CHANNELS} values, got {len(self.mean)}")
        for place, value in enumerate(self.mean):
            yield from within(f"mean.{place}", value, -_MOST_PIXEL, _MOST_PIXEL)
        for place, value in enumerate(self.std):
            if value > 0:
                yield from within(f"std.{place}", value, 1 / _MOST_PIXEL, _MOST_PIXEL)
        if self.augmentation.changes_colors and len(self.mean) not in (1, 3):
            yield Problem(
                "augmentation", f"changes colours, which needs 1 or 3 channels: mean has {len(self.mean)} values"
            )
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            yield Problem("std", f"must be positive, one value per value of mean {self.mean}, got {self.std}")
