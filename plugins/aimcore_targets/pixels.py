"""Raw pixels as targets."""

from __future__ import annotations

from torch import Tensor

from aimcore import Batch, Target, component


@component("pixels", paper="arXiv:2401.08541, Table 3a")
class Pixels(Target):
    """The pixels that the trunk reads (normalised with the data's mean and standard deviation), with squared error.

    The loss is the mean over the patch's values; equation 2 writes the sum, which is F times as large (F = 588 for
    14 px patches in colour).
    """

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        """Return F, the number of values of a patch."""
        return patch_size**2 * num_channels

    def values(self, batch: Batch) -> Tensor:
        """``[B, N, F]``: the patches themselves."""
        return batch.images.patches_BNF

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        """``[M]``: mean squared error over each patch's values."""
        return (predictions_MK - values_M).square().mean(-1)

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        """``[B, N, F]``: predictions are pixels already."""
        return predictions_BNK
