"""Targets, each broken in one way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Batch, Target, TargetModule, View, component
from aimcore.contracts.images import patchify
from aimcore.contracts.targets import Sees, WeightlessTarget
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


class CroppedPictures(WeightlessTarget):
    def drawn(self, predictions_BNK: Tensor, predicted_BN: Tensor, batch: Batch) -> Tensor:
        return super().drawn(predictions_BNK, predicted_BN, batch)[:, 1:]


@component("mutant")
class Cropped(Pixels):
    """Draws pictures without their first patch."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        return CroppedPictures()


@component("mutant")
class Branching(Pixels):
    """Looks at the pixels to decide what to do."""

    def values(self, batch: Batch) -> Tensor:
        patches_BNF = super().values(batch)
        return patches_BNF / 255 if patches_BNF.max() > 100 else patches_BNF


class CodeBook(TargetModule):
    """The nearest of random unit vectors to a random projection of a patch (arXiv:2202.01855, section 3)."""

    def __init__(self, patch_size: int, num_channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(patch_size**2 * num_channels, 8, bias=False)
        self.entries_CE = nn.Parameter(torch.randn(4, 8))

    def forward(self, batch: Batch) -> Tensor:
        projected_BNE = self.project(batch.images.patches_BNF.to(self.project.weight.dtype))
        return (projected_BNE @ self.entries_CE.T).argmax(-1)


@component("sound_code_book")
class RandomCodes(Target):
    """Codes of a random code book, which sees a patch alone."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        return CodeBook(patch_size, num_channels)

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 4

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return functional.cross_entropy(predictions_MK, values_M, reduction="none")


class Tokens(TargetModule):
    """A random linear teacher, each of whose tokens sees the mean patch too."""

    def __init__(self, patch_size: int, num_channels: int) -> None:
        super().__init__()
        self.teach = nn.Linear(patch_size**2 * num_channels, 8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Batch) -> Tensor:
        patches_BNF = batch.images.patches_BNF.to(self.teach.weight.dtype)
        valid_BN1 = batch.images.valid_BN.unsqueeze(-1)  # masked padding is no part of the image
        mean_B1F = (patches_BNF * valid_BN1).sum(1, keepdim=True) / valid_BN1.sum(1, keepdim=True)
        tokens_BNE: Tensor = self.dropout(self.teach(patches_BNF + mean_B1F))
        return tokens_BNE


@component("sound_teacher")
class Teacher(Target):
    """Tokens of a random teacher, which sees the whole image, and whose dropout is off."""

    @property
    def sees(self) -> Sees:
        return "image"

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        return Tokens(patch_size, num_channels)

    def num_outputs(self, patch_size: int, num_channels: int) -> int:
        return 8

    def loss(self, predictions_MK: Tensor, values_M: Tensor) -> Tensor:
        return (predictions_MK - values_M).square().mean(-1)


@component("mutant")
class ShortSighted(Pixels):
    """Says that its values depend on the whole image."""

    @property
    def sees(self) -> Sees:
        return "image"


@component("mutant")
class FarSighted(Teacher):
    """Says that a teacher's tokens depend on their own patch alone."""

    @property
    def sees(self) -> Sees:
        return "patch"


class UnsavedCodeBook(CodeBook):
    in_checkpoints = False


@component("mutant")
class Unsaved(RandomCodes):
    """Draws a code book that is in no checkpoint."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        return UnsavedCodeBook(patch_size, num_channels)


class WakingTokens(Tokens):
    def train(self, mode: bool = True) -> TargetModule:
        nn.Module.train(self, mode)
        return self


@component("mutant")
class Waking(Teacher):
    """Has dropout that is on in training mode."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        return WakingTokens(patch_size, num_channels)


@component("mutant")
class Seeding(Teacher):
    """Seeds torch's global generator before it draws its weights."""

    def build(self, patch_size: int, num_channels: int) -> TargetModule | None:
        torch.manual_seed(0)
        return super().build(patch_size, num_channels)


SOUND = (Pixels(), Levels(), RandomCodes(), Teacher())
MUTANTS = (
    (checks.check_num_outputs_is_a_positive_whole_number, Fractional()),
    (checks.check_values_have_one_row_per_patch, ShortCodes()),
    (checks.check_values_are_in_raster_order, Backwards()),
    (checks.check_values_depend_on_what_it_sees, Blurred()),
    (checks.check_values_depend_on_what_it_sees, ShortSighted()),
    (checks.check_values_depend_on_what_it_sees, FarSighted()),
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
    (checks.check_pictures_are_patches_or_refused, Cropped()),
    (checks.check_a_dry_run_can_count_it, Branching()),
    (checks.check_its_weights_come_back, Unsaved()),
    (checks.check_its_values_are_always_the_same, Waking()),
    (checks.check_its_weights_follow_torchs_seed, Seeding()),
)
