"""Image sizes of the probes of an experiment (arXiv:2411.14402, Table 6)."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import attrs

from aimcore.experiment import Data, Experiment


@attrs.frozen
class ProbeSize:
    """The size of images for probes: squares of ``image_size`` pixels, or native aspect ratios within an area."""

    image_size: int
    native_area: int | None = None
    """Maximum number of patches of each image; if it is given, ``image_size`` is not used."""
    suffix: str = ""
    """Suffix of a probe's name in the name of its score: empty at the experiment's image size, else ``"@448"`` or
    ``"@native"``."""

    @property
    def is_own(self) -> bool:
        """Whether this is the size of the experiment's validation images."""
        return not self.suffix

    def data(self, data: Data) -> Data:
        """Return ``data`` with this image size."""
        changed: Data = attrs.evolve(data, image_size=self.image_size)  # type: ignore[misc]
        return changed

    def transform(self, data: Data) -> str:
        """Describe how images are transformed to this size, for the protocol card."""
        values = f"mean {list(data.mean)}, std {list(data.std)}"
        if self.native_area is None:
            short_side = ceil(self.image_size / data.eval_crop)
            return f"short side to {short_side} px (bicubic), centre crop to {self.image_size} px, {values}"
        masked = data.native is not None and data.native.padding == "masked"
        return (
            f"own aspect ratio, resized (bicubic) to fit in {self.native_area} patches, not cropped, {values}; "
            f"filled up with zeros, which are {'masked' if masked else 'part of the image'}"
        )

    def description(self, data: Data, patch_size: int) -> dict[str, Any]:
        """Return every setting of the transform that features depend on, as plain values."""
        return {
            "image_size": self.image_size,
            "native_area": self.native_area,
            "native_padding": None if self.native_area is None or data.native is None else data.native.padding,
            "eval_crop": data.eval_crop,
            "mean": list(data.mean),
            "std": list(data.std),
            "patch_size": patch_size,
        }


def probe_sizes(experiment: Experiment) -> Iterator[ProbeSize]:
    """Yield the experiment's image size, then additional sizes, then native resolution."""
    own = experiment.data.image_size
    yield ProbeSize(own)
    for size in experiment.probe_image_sizes:
        yield ProbeSize(size, suffix=f"@{size}")
    if experiment.probe_native_area is not None:
        yield ProbeSize(own, experiment.probe_native_area, suffix="@native")
