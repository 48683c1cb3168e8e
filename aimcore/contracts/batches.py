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

from aimcore.contracts.images import Images


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
    """Whatever else is known; evaluations can group by it. It is not in batches."""


@attrs.frozen
class View:
    """An extra rendering of the same crop that a target or objective asks for.

    ``pixels_per_patch`` fixes its size: a 16 x 16 grid with 8 pixels per patch is a 128 px view. ``normalize`` says
    whether the data's mean and standard deviation are applied; otherwise values lie in [0, 1].
    """

    key: str
    """Its name in ``batch.views``."""
    pixels_per_patch: int
    """Its size: that of the grid times this."""
    normalize: bool = False
    """Whether it is normalised as the images are; otherwise in [0, 1]."""


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
    """``"identifiers"`` of the samples, and in evaluations their ``"captions"``."""

    def to(self, device: torch.device) -> Batch:
        """The same batch with its images, views and labels on ``device``."""
        return attrs.evolve(
            self,
            images=self.images.to(device),
            labels_B=None if self.labels_B is None else self.labels_B.to(device),
            views={key: view.to(device, non_blocking=True) for key, view in self.views.items()},
        )
