"""Targets, each broken in one way."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from aimcore import Batch, Target, View, component
from aimcore.contracts.images import patchify
from aimcore.testing.checks import targets as checks


@component("sound")
class Pixels(Target):
    """Pixels under squared error."""

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return patch_size**2 * num_channels

    def values(self, batch: Batch) -> Tensor:
        return batch.images.patches_BNF

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return (predictions_MK - values_M).square().mean(-1)

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        return predictions_BNK


@component("sound_codes")
class Levels(Target):
    """Brightness of a patch of a view, in four levels, under cross-entropy; it cannot be drawn."""

    @property
    def views(self) -> tuple[View, ...]:
        return (View(key="levels", pixels_per_patch=2),)

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 4

    def values(self, batch: Batch) -> Tensor:
        brightness_BN = patchify(batch.views["levels"], 2).mean(-1)
        return (brightness_BN * 40).long() % 4

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return functional.cross_entropy(predictions_MK, values_M.long(), reduction="none")


@component("mutant")
class Fractional(Pixels):
    """Gives its number of outputs as a float."""

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return float(patch_size**2 * num_channels)  # type: ignore[return-value]


@component("mutant")
class ShortCodes(Levels):
    """Gives codes as int32."""

    def values(self, batch: Batch) -> Tensor:
        return super().values(batch).int()


@component("mutant")
class Backwards(Pixels):
    """Gives its values from the last patch to the first."""

    def values(self, batch: Batch) -> Tensor:
        return super().values(batch).flip(1)


@component("mutant")
class Blurred(Pixels):
    """Mixes a fifth of the patch before into each patch."""

    def values(self, batch: Batch) -> Tensor:
        patches_BNF = super().values(batch)
        return 0.8 * patches_BNF + 0.2 * patches_BNF.roll(1, dims=1)


@component("mutant")
class BatchNormalised(Pixels):
    """Subtracts the mean over the batch."""

    def values(self, batch: Batch) -> Tensor:
        return super().values(batch) - super().values(batch).mean(0)


@component("mutant")
class Trainable(Pixels):
    """Gives values that carry a gradient."""

    def values(self, batch: Batch) -> Tensor:
        patches_BNF = super().values(batch)
        return patches_BNF * patches_BNF.new_ones(1).requires_grad_()


@component("mutant")
class InPlace(Pixels):
    """Clips the pixels where they stand."""

    def values(self, batch: Batch) -> Tensor:
        return batch.images.patches_BNF.clamp_(-1, 1).clone()


@component("mutant")
class Columns(Pixels):
    """Gives its losses as a column ``[M, 1]``."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, values_M).unsqueeze(-1)


@component("mutant")
class Counting(Pixels):
    """Multiplies each loss by the number of scored patches."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, values_M) * len(values_M)


@component("mutant")
class Costly(Pixels):
    """Charges for exact predictions."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, values_M) + 0.1


@component("mutant")
class NextCode(Levels):
    """Rewards the code after the right one."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, (values_M + 1) % 4)


@component("mutant")
class TooFewOutputs(Levels):
    """Has more codes than outputs."""

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 3

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, values_M % 3)


@component("mutant")
class Uphill(Pixels):
    """Has a gradient that points the wrong way."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(2 * predictions_MK.detach() - predictions_MK, values_M)


@component("mutant")
class Rooted(Pixels):
    """Takes the square root of the squared error."""

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return super().loss(predictions_MK, values_M).sqrt()


@component("mutant")
class Standardised(Pixels):
    """Divides each patch by its standard deviation, which may be 0."""

    def values(self, batch: Batch) -> Tensor:
        patches_BNF = super().values(batch)
        return (patches_BNF - patches_BNF.mean(-1, keepdim=True)) / patches_BNF.std(-1, keepdim=True)


@component("mutant")
class ColourOnly(Pixels):
    """Always expects patches of 4 px in colour."""

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 48


@component("mutant")
class Unflattened(Pixels):
    """Gives pictures of patches with rows and columns apart."""

    def to_patches(self, predictions_BNK: Tensor, patches_BNF: Tensor) -> Tensor:
        return predictions_BNK.unflatten(-1, (4, 4, 3))


@component("mutant")
class Branching(Pixels):
    """Looks at the pixels to decide what to do."""

    def values(self, batch: Batch) -> Tensor:
        patches_BNF = super().values(batch)
        return patches_BNF / 255 if patches_BNF.max() > 100 else patches_BNF


SOUND = (Pixels(), Levels())
MUTANTS = (
    (checks.check_num_outputs_is_a_positive_whole_number, Fractional()),
    (checks.check_values_have_one_row_per_patch, ShortCodes()),
    (checks.check_values_stand_in_raster_order, Backwards()),
    (checks.check_values_depend_on_their_own_patch_alone, Blurred()),
    (checks.check_values_of_an_image_depend_on_it_alone, BatchNormalised()),
    (checks.check_values_carry_no_gradient, Trainable()),
    (checks.check_values_leave_the_batch_as_it_was, InPlace()),
    (checks.check_a_loss_is_one_number_per_scored_patch, Columns()),
    (checks.check_a_patchs_loss_depends_on_it_alone, Counting()),
    (checks.check_right_predictions_cost_least, Costly()),
    (checks.check_right_predictions_cost_least, NextCode()),
    (checks.check_codes_are_below_num_outputs, TooFewOutputs()),
    (checks.check_following_the_gradient_lowers_the_loss, Uphill()),
    (checks.check_the_gradient_is_finite_at_exact_predictions, Rooted()),
    (checks.check_patches_of_one_colour_have_finite_losses, Standardised()),
    (checks.check_any_patch_size_and_number_of_channels_will_do, ColourOnly()),
    (checks.check_pictures_are_patches_or_refused, Unflattened()),
    (checks.check_a_dry_run_can_count_it, Branching()),
)
