"""What is predicted, and by what: targets, heads and decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from aimcore.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from aimcore.modules import DecoderModule, HeadModule
    from aimcore.values import Batch, View


class Target(Component, ABC):
    """What a patch is predicted as: its pixels, normalised pixels, or a code."""

    __slots__ = ()
    role: ClassVar[str] = "targets"

    @property
    def views(self) -> tuple[View, ...]:
        """Extra renderings of the crop that :meth:`values` reads from ``batch.views``."""
        return ()

    @abstractmethod
    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """K: how many numbers a head predicts per patch."""

    @abstractmethod
    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order."""

    @abstractmethod
    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]`` one loss per scored patch; ``values_M`` are rows of :meth:`values`."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` pixels of predictions, for pictures.

        ``patches_BNF`` are the true patches, for targets that keep less than the pixels (a normalised target needs
        the patch's own mean and variance, which leaks both into the picture).

        Raises:
            NotImplementedError: this target cannot be drawn.
        """
        raise NotImplementedError(f"target {self.name!r} cannot be turned into pixels")


class Head(Component, ABC):
    """A prediction head between trunk and loss, discarded after pre-training."""

    __slots__ = ()
    role: ClassVar[str] = "heads"

    @abstractmethod
    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        """The module: tokens of width ``in_width`` in, ``num_outputs`` numbers per scored position out."""


class Decoder(Component, ABC):
    """A decoder that reads image features, with or without text."""

    __slots__ = ()
    role: ClassVar[str] = "decoders"

    @property
    def predicts_patches(self) -> bool:
        """Whether it predicts patches besides text."""
        return True

    @abstractmethod
    def build(self, in_width: int, num_outputs: int, vocabulary_size: int, context_length: int) -> DecoderModule:
        """The module: image features of width ``in_width`` in, patch values and token logits out.

        ``num_outputs`` 0 builds one that predicts no patches.
        """
