"""Augmentations: random changes of images in training, drawn from sample numbers."""

from __future__ import annotations

from collections.abc import Iterable

from aimcore.contracts.component import Checked, at_least, settings, within
from aimcore.contracts.errors import Problem

_WIDEST_CROP = 1000
_MOST_JITTER = 100
_MOST_OPERATIONS = 100


@settings
class RandAugment(Checked):
    """Random changes of colours and geometry (arXiv:1909.13719); the defaults are timm's ``rand-m9-mstd0.5-inc1``.

    That string is in arXiv:2401.08541, Table 11 (which calls it AutoAugment) and arXiv:2411.14402, Table A2. Its
    operations are timm's increasing ones. Departure: rotations, shears and translations always sample bilinearly, where
    timm draws bilinear or bicubic.
    """

    magnitude: float = 9.0
    """Mean strength of an operation, from 0 to 10 (``m9``)."""
    magnitude_std: float = 0.5
    """Standard deviation of the strength, which is then cut to [0, 10] (``mstd0.5``)."""
    num_ops: int = 2
    """Operations that are drawn per image."""
    probability: float = 0.5
    """Probability that a drawn operation is applied."""

    def problems(self) -> Iterable[Problem]:
        """Yield numbers out of their ranges."""
        yield from within("magnitude", self.magnitude, 0, 10)
        yield from within("magnitude_std", self.magnitude_std, 0, _MOST_JITTER)
        yield from at_least("num_ops", self.num_ops, 1, _MOST_OPERATIONS)
        yield from within("probability", self.probability, 0, 1)


@settings
class Augmentation(Checked):
    """Changes of training images: crop, flip, RandAugment, colour jitter, in this order.

    The defaults are arXiv:2401.08541, Table 10. Table 11 and arXiv:2411.14402, Table A2, train probes with
    ``Augmentation(crop_scale=(0.08, 1.0), color_jitter=(0.3, 0.3, 0.3, 0.0), color_jitter_probability=1.0,
    rand_augment=RandAugment())``. timm, whose settings these tables name, leaves out the colour jitter if there is
    RandAugment, unless it is forced; here both are applied if both are set.
    """

    crop_scale: tuple[float, float] = (0.4, 1.0)
    """Share of the image's area that a crop covers."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of a crop."""
    flip_probability: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: tuple[float, float, float, float] | None = None
    """Brightness, contrast, saturation and hue; the authors' configuration has (0.4, 0.4, 0.2, 0.1), Table 10 none."""
    color_jitter_probability: float = 0.8
    rand_augment: RandAugment | None = None
    """RandAugment between flip and colour jitter; None applies none."""

    def problems(self) -> Iterable[Problem]:
        """Yield ranges that are not ordered, and probabilities outside of [0, 1]."""
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield Problem("crop_scale", f"must be two shares 0 < low <= high <= 1, got {self.crop_scale}")
        if not 1 / _WIDEST_CROP <= self.crop_ratio[0] <= self.crop_ratio[1] <= _WIDEST_CROP:
            yield Problem(
                "crop_ratio",
                f"must be two ratios 1/{_WIDEST_CROP} <= low <= high <= {_WIDEST_CROP}, got {self.crop_ratio}",
            )
        if self.color_jitter is not None:
            yield from self._jitter_problems(*self.color_jitter)
        yield from within("flip_probability", self.flip_probability, 0, 1)
        yield from within("color_jitter_probability", self.color_jitter_probability, 0, 1)

    @property
    def is_random(self) -> bool:
        """Whether two renderings of an image may differ.

        A crop of the whole area with one ratio is the whole image or its middle.
        """
        whole = self.crop_scale == (1.0, 1.0) and self.crop_ratio[0] == self.crop_ratio[1]
        jitters = self.color_jitter is not None and self.color_jitter_probability > 0
        return not whole or 0 < self.flip_probability < 1 or jitters or self.rand_augment is not None

    @property
    def changes_colors(self) -> bool:
        """Whether colours change, which is defined for images of 1 or 3 channels."""
        return self.color_jitter is not None or self.rand_augment is not None

    def _jitter_problems(self, *spreads: float) -> Iterable[Problem]:
        for place, spread in enumerate(spreads):
            most = _MOST_JITTER if place < 3 else 0.5  # hue is half a turn at most
            yield from within(f"color_jitter.{place}", spread, 0, most)
