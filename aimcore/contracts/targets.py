"""Targets: what a patch is predicted as."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from aimcore.contracts.batches import Batch, Extra, View
from aimcore.contracts.component import Component

Sees = Literal["patch", "image"]
"""What the target of a patch depends on: its own pixels, or pixels anywhere in the image."""


class Target(Component, ABC):
    """What a patch is predicted as: its pixels, normalised pixels, a code, or a teacher's token.

    A target without weights gives :meth:`values`. One with weights builds a :class:`TargetModule` that gives them. An
    objective calls :func:`aimcore.built_target`, which makes a module of either.
    """

    __slots__ = ()
    role: ClassVar[str] = "targets"

    @property
    def views(self) -> tuple[View, ...]:
        """Further renderings of each sample that its values are made of, from ``batch.views``."""
        return ()

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Values of ``Sample.extras`` that its values are made of, from ``batch.extras``."""
        return ()

    @property
    def sees(self) -> Sees:
        """What a patch's target depends on: the patch alone, or the whole image.

        With ``"image"``, objectives have to say which patch each step scores (:attr:`Loss.scored_patch_BN`).
        """
        return "patch"

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        """The module of a target with weights, drawn from torch's global generator or read from a file; else None."""
        return None

    @abstractmethod
    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """K: how many numbers a head predicts per patch."""

    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order.

        Raises:
            NotImplementedError: this target has weights, and its module gives the values.
        """
        raise NotImplementedError(
            f"target {self.name!r} gives no values without its module: in the objective's module, set self.target = "
            "aimcore.built_target(target, trunk.patch_size, trunk.num_channels), and call self.target(batch)"
        )

    @abstractmethod
    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]`` one loss per scored patch; ``values_M`` are rows of the values."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` pixels of predictions, for pictures.

        ``patches_BNF`` are the true patches, for targets that keep less than the pixels (a normalised target needs
        the patch's own mean and variance, which leaks both into the picture).

        Raises:
            NotImplementedError: this target cannot be drawn.
        """
        raise NotImplementedError(f"target {self.name!r} cannot be turned into pixels")


class TargetModule(nn.Module, ABC):
    """What makes the values of a target. ``forward(batch)`` gives what :meth:`Target.values` describes.

    The objective's module owns it. :func:`aimcore.built_target` freezes it: its weights become buffers, which no
    optimiser trains, and which are float32 and whole on every rank at every ZeRO stage and precision. It is always in
    evaluation mode.
    """

    in_checkpoints: ClassVar[bool] = True
    """Whether checkpoints and files of weights hold its weights. They may do without those that ``build`` reads from a
    file whose hash it checks, as every build reads the same ones. Weights that are drawn must be kept."""
    target: Target
    """The component that built it; :func:`aimcore.built_target` sets it."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]`` one loss per scored patch. Override it where the loss needs weights; by default the component's."""
        return self.target.loss(predictions_MK, values_M)

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]`` pixels of predictions. Override it where they need weights; by default the component's."""
        return self.target.to_patches(predictions_BNK, patches_BNF)

    def train(self, mode: bool = True) -> TargetModule:
        """Stay in evaluation mode, whatever ``mode`` is."""
        return super().train(False)


class WeightlessTarget(TargetModule):
    """The module of a target without weights: its values."""

    def forward(self, batch: Batch) -> Tensor:
        """What the component gives."""
        return self.target.values(batch)
