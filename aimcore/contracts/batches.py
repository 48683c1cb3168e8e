"""Samples, text and batches: what data loading passes to trunks, targets and objectives.

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
    leading tokens that every query sees.
    """

    ids_BT: Tensor
    """Token ids."""
    valid_BT: Tensor
    """True for the tokens that are scored, False on padding."""
    masked_BT: Tensor | None = None
    """True where the mask token replaces the token; None masks nothing."""
    prefix_length_B: Tensor | None = None
    """Number of leading tokens that every query sees, int64."""


@attrs.frozen(eq=False)
class Sample:
    """One example of a source: an image ``uint8 [C, H, W]`` with its captions, label and extras."""

    image: Tensor
    """``uint8 [C, H, W]``, 1 to 4 channels, on the CPU."""
    identifier: str
    """Its name in messages, unique within a source."""
    captions: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Captions by kind (``"alt"``, ``"synthetic"``)."""
    label: int | None = None
    """Index of its class; None if it has no label."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """Further values by key. Evaluations can group by them; objectives request them as :class:`Extra` or
    :class:`View`."""


@attrs.frozen
class View:
    """An additional rendering of a sample that a target or objective requests: ``batch.views[key]``, ``[B, C, H, W]``.

    By default it shows the same crop as ``batch.images``, in another size: a grid of 16 x 16 patches with
    ``pixels_per_patch=8`` gives a view of 128 px. With ``crop`` it has a crop, flip and colours of its own (two
    augmentations, as in arXiv:2002.05709). With ``of`` it renders another image of the sample, such as a segmentation
    mask.
    """

    key: str
    """Its name in ``batch.views``."""
    pixels_per_patch: int | None = None
    """Its height and width in pixels per row and column of the grid. Give either this or ``side``."""
    normalize: bool = False
    """Whether it is normalised like ``batch.images``; otherwise its values are in [0, 1]."""
    crop: str | None = None
    """Name of a separate crop, drawn from (seed, this name, sample number); views with the same name share it. None
    uses the crop of ``batch.images``. Validation draws the crop too, always with the same seed."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share of the image's area that ``crop`` covers; by default that of ``data.augmentation``."""
    side: int | None = None
    """Side in pixels of a square view, independent of the grid. Views at native resolution must use it."""
    of: str | None = None
    """Key in ``Sample.extras`` of the image to render: integers ``[H, W]`` or ``[C, H, W]`` of the size of the sample's
    image. It is resized by nearest neighbour, without colour augmentation; its values are int64, not normalised."""
    num_channels: int = 1
    """C of the image that ``of`` names; other views have the channels of ``batch.images``."""

    def extent(self, grid: PatchGrid, num_channels: int) -> tuple[int, int, int]:
        """Return channels, height and width in pixels of this view of images with ``grid`` and ``num_channels``."""
        channels = num_channels if self.of is None else self.num_channels
        if self.side is not None:
            return channels, self.side, self.side
        assert self.pixels_per_patch is not None
        return channels, grid.rows * self.pixels_per_patch, grid.columns * self.pixels_per_patch


@attrs.frozen(eq=False)
class Extra:
    """A value of ``Sample.extras`` that a target or objective requests: ``batch.extras[key]``.

    Tensors are stacked, ``[B, ...]``; other values become a tuple of B.
    """

    key: str
    """Its name in ``Sample.extras`` and in ``batch.extras``."""
    example: Any
    """An example of the value, for the conformance kit and dry runs. If it is a tensor, samples must have tensors of
    the same shape and type."""


@attrs.frozen(eq=False)
class Batch:
    """One rank's share of a step.

    ``seed`` and ``sample_numbers_B`` determine everything random about a sample; see
    :mod:`aimcore.contracts.randomness`. Both and ``text`` are always on the CPU, so that the number of targets is known
    without a wait for the device; modules move token ids to the device themselves.
    """

    images: Images
    """What the trunk reads."""
    sample_numbers_B: Tensor
    """Numbers of the samples in the run, int64; in evaluations, indices in the source."""
    seed: int = 0
    """Seed of the run."""
    text: Text | None = None
    """Captions, if the objective reads text."""
    labels_B: Tensor | None = None
    """Class indices, if the source has labels."""
    views: Mapping[str, Tensor] = attrs.field(factory=dict)
    """One tensor ``[B, C, H, W]`` per :class:`View` that the objective requests, by key."""
    extras: Mapping[str, Any] = attrs.field(factory=dict)
    """``"identifiers"`` of the samples, their ``"captions"`` if there is text, and each requested :class:`Extra`."""

    def to(self, device: torch.device) -> Batch:
        """Return the same batch with its images, views, labels and tensors of ``extras`` on ``device``."""
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
