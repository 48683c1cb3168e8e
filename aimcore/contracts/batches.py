"""Samples, text and batches: what data loading hands to trunks, targets and objectives.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values per patch, D width, M scored positions,
K outputs, T text tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from aimcore.contracts.images import Images, PatchGrid


@attrs.frozen(eq=False)
class Text:
    """A batch of token ids, padded at the end.

    ``masked_BT`` marks tokens replaced by the mask token (CapPa's parallel mode); ``prefix_length_B`` the number of
    leading tokens that all may see.
    """

    ids_BT: Tensor
    """Token ids."""
    valid_BT: Tensor
    """True for the tokens that are scored, False on padding."""
    masked_BT: Tensor | None = None
    """True where the mask token is read instead."""
    prefix_length_B: Tensor | None = None
    """Leading tokens that all may see."""


@attrs.frozen(eq=False)
class Sample:
    """One example of a source: an image ``uint8 [C, H, W]`` with whatever is known about it."""

    image: Tensor
    """``uint8 [C, H, W]``, 1 to 4 channels, on the CPU."""
    identifier: str
    """What messages call it; no two samples of a source share one."""
    captions: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Captions by kind (``"alt"``, ``"synthetic"``)."""
    label: int | None = None
    """Index of its class."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """Whatever else is known: evaluations can group by it, and objectives ask for it as :class:`Extra` or
    :class:`View`."""


@attrs.frozen
class View:
    """A further rendering of a sample that a target or objective asks for: ``batch.views[key]``, ``[B, C, H, W]``.

    By default it shows the same crop as ``batch.images``, in another size: a grid of 16 x 16 patches with
    ``pixels_per_patch=8`` gives a view of 128 px. ``crop`` draws a crop of its own, with its own flip and colours (two
    augmentations, as in arXiv:2002.05709). ``of`` renders another image of the sample, such as a segmentation mask.
    """

    key: str
    """Its name in ``batch.views``."""
    pixels_per_patch: int | None = None
    """Its size: that of the grid times this. Either this or ``side`` is given."""
    normalize: bool = False
    """Whether it is normalised as the images are; otherwise in [0, 1]."""
    crop: str | None = None
    """Name of a crop of its own, drawn from (seed, this name, sample number); views of one name share it. None is the
    crop of ``batch.images``. Validation draws it too, always with the same seed."""
    crop_scale: tuple[float, float] | None = None
    """Share of the image's area that its own crop covers; by default that of ``data.augmentation``."""
    side: int | None = None
    """Its size: a square of so many pixels, whatever the grid. The only size that there is at native resolution."""
    of: str | None = None
    """Key in ``Sample.extras`` of the image to render: integers ``[H, W]`` or ``[C, H, W]``, as large as the sample's
    image. Pixels are picked (nearest), never mixed; colours stay; the values are int64, not normalised."""
    num_channels: int = 1
    """C of an image ``of`` the sample's extras; other views have the channels of ``batch.images``."""

    def extent(self, grid: PatchGrid, num_channels: int) -> tuple[int, int, int]:
        """Its channels, height and width in pixels beside images of ``grid`` with ``num_channels``."""
        channels = num_channels if self.of is None else self.num_channels
        if self.side is not None:
            return channels, self.side, self.side
        assert self.pixels_per_patch is not None
        return channels, grid.rows * self.pixels_per_patch, grid.columns * self.pixels_per_patch


@attrs.frozen(eq=False)
class Extra:
    """A value of ``Sample.extras`` that a target or objective asks for: ``batch.extras[key]``.

    Tensors are stacked, ``[B, ...]``; other values become a tuple of B.
    """

    key: str
    """Its name in ``Sample.extras`` and in ``batch.extras``."""
    example: Any
    """A value such as samples have: the conformance kit and dry runs use it. If it is a tensor, samples must have
    tensors of the same shape and type."""


@attrs.frozen(eq=False)
class Batch:
    """One rank's share of a step.

    ``seed`` and ``sample_numbers_B`` determine everything random about a sample; see :mod:`aimcore.randomness`. They
    and ``text`` are always on the CPU, so that what is scored is known there and no device waits; modules move ids as
    they use them. ``views`` holds one ``[B, C, H, W]`` tensor per :class:`View` key.
    """

    images: Images
    """What the trunk reads."""
    sample_numbers_B: Tensor
    """Numbers of the samples in the run, int64; places in the source in evaluations."""
    seed: int = 0
    """Of the run."""
    text: Text | None = None
    """Captions, where the objective asks for them."""
    labels_B: Tensor | None = None
    """Classes, where the source has them."""
    views: Mapping[str, Tensor] = attrs.field(factory=dict)
    """``[B, C, H, W]`` by key, those that the objective asks for."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """``"identifiers"`` of the samples, with text their ``"captions"``, and what is asked for as :class:`Extra`."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its images, views, labels and tensors of ``extras`` on ``device``."""
        return attrs.evolve(
            self,
            images=self.images.to(device),
            labels_B=None if self.labels_B is None else self.labels_B.to(device),
            views={key: view.to(device, non_blocking=True) for key, view in self.views.items()},
            extras={
                key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
                for key, value in self.extras.items()
            },
        )
