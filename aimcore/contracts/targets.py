"""Targets: the values that are predicted of a patch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Batch, Extra, View
from aimcore.contracts.component import Component

Sees = Literal["patch", "image"]
"""What the target of a patch depends on: its own pixels, or pixels anywhere in the image."""


class Target(Component, ABC):
    """The values that are predicted of a patch: its pixels, normalised pixels, a code, or a teacher's token.

    A target without weights implements :meth:`values`. A target with weights builds a :class:`TargetModule` instead. An
    objective calls :func:`aimcore.built_target`, which returns a module for both.
    """

    __slots__ = ()
    role: ClassVar[str] = "targets"

    @property
    def views(self) -> tuple[View, ...]:
        """Additional renderings of each sample that its values depend on, in ``batch.views``."""
        return ()

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Values of ``Sample.extras`` that its values depend on, in ``batch.extras``."""
        return ()

    @property
    def sees(self) -> Sees:
        """Whether a patch's target depends on the patch alone or on the whole image.

        With ``"image"``, objectives must set :attr:`Loss.scored_patch_BN`, the patch that each step scores.
        """
        return "patch"

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        """Build the module of a target with weights; return None for a target without.

        The weights are drawn from torch's global generator or read from a file.
        """
        return None

    @abstractmethod
    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """Return K, the number of outputs that a head predicts per patch."""

    def values(self, batch: Batch) -> Tensor:
        """Return ``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order.

        Raises:
            NotImplementedError: this target has weights; its module computes the values.
        """
        raise NotImplementedError(
            f"target {self.name!r} has no values without its module: in the objective's module, set self.target = "
            "aimcore.built_target(target, trunk.patch_size, trunk.num_channels), and call self.target(batch)"
        )

    @abstractmethod
    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """Return one loss per scored patch, ``[M]``; ``values_M`` are rows of the values."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """Convert predictions to pixels ``[B, N, F]``, for pictures.

        ``patches_BNF`` are the true patches, for targets that hold less information than pixels: a normalised target
        needs the mean and variance of the true patch, so both leak into the picture.

        Raises:
            NotImplementedError: predictions of this target cannot be converted to pixels.
        """
        raise NotImplementedError(f"target {self.name!r} cannot be converted to pixels")


class TargetModule(nn.Module, ABC):
    """A module that computes the values of a target: ``forward(batch)`` returns those of :meth:`Target.values`.

    The objective's module owns it. :func:`aimcore.built_target` freezes it: its weights become buffers, which no
    optimiser trains, and which are float32 and whole on every rank at every ZeRO stage and precision. It is always in
    eval mode, and computes without autocast: targets do not depend on the precision of the run.
    """

    in_checkpoints: ClassVar[bool] = True
    """Whether checkpoints and files of weights contain its weights. Drawn weights must be in checkpoints. False is
    allowed if ``build`` reads the weights from a file and checks its hash."""
    target: Target
    """The component that built it; :func:`aimcore.built_target` sets it."""

    def __call__(self, batch: Batch) -> Tensor:
        """Compute the values of ``batch`` without autocast."""
        kind = batch.images.patches_BNF.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            values: Tensor = super().__call__(batch)
            return values

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return ``[B, N, F]`` values or ``[B, N]`` codes per patch, in raster order.

        ``batch.images.patches_BNF`` may have any floating type: the conformance kit uses float64. Convert it to the
        type of your weights.
        """

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """Return one loss per scored patch, ``[M]``. Override it if the loss needs weights."""
        return self.target.loss(predictions_MK, values_M)

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """Convert predictions to pixels ``[B, N, F]``. Override it if that needs weights."""
        return self.target.to_patches(predictions_BNK, patches_BNF)

    def drawn(self, predictions_BNK: Tensor, predicted_BN: Tensor, batch: Batch) -> Tensor:
        """Convert predictions to pixels ``[B, N, F]`` as in ``batch.images``, for pictures.

        The default calls :meth:`to_patches`. Override it if pixels need more of the batch: its normalisation, its
        views, or the true values of patches that are not predicted.

        Args:
            predictions_BNK: predictions in raster order; arbitrary where ``predicted_BN`` is False.
            predicted_BN: whether a patch is predicted.
            batch: the images, with the views of the target.

        Raises:
            NotImplementedError: predictions of this target cannot be converted to pixels.
        """
        return self.to_patches(predictions_BNK, batch.images.patches_BNF)

    def decoded(self, batch: Batch) -> Tensor:
        """Convert the true values of ``batch`` to pixels ``[B, N, F]``, for pictures: the best that predictions can be.

        Optional, for targets that hold less information than pixels.

        Raises:
            NotImplementedError: values of this target cannot be converted to pixels.
        """
        raise NotImplementedError(f"values of target {self.target.name!r} cannot be converted to pixels")

    def train(self, mode: bool = True) -> TargetModule:
        """Stay in eval mode for every ``mode``."""
        return super().train(False)


class WeightlessTarget(TargetModule):
    """The module of a target without weights."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the values of the component."""
        return self.target.values(batch)
