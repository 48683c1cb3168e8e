"""Trunks, each broken in one way."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from core.testing.mutants.heads import Wrapping
from torch import Tensor, nn
from torch.nn import functional

from aimcore import CAUSAL, Attention, Capability, Features, Images, PatchGrid, Reading, Trunk, TrunkModule, component
from aimcore.contracts.images import reorder
from aimcore.testing.checks import trunk_capabilities
from aimcore.testing.checks import trunks as checks
from aimcore.testing.small_parts import StandInTrunk, StandInTrunkModule, with_merged_columns


class PlainModule(StandInTrunkModule):
    def __init__(self) -> None:
        super().__init__(4)
        self.mask_token.requires_grad_(False)


@component("sound")
class Sound(Trunk):
    """Reads a uniform batch bidirectionally, in raster order, and can do nothing else."""

    abilities: tuple[str, ...] = ()

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(self.abilities)  # type: ignore[arg-type]

    @property
    def patch_size(self) -> int:
        return 4

    def build(self) -> TrunkModule:
        return PlainModule()


@component("mutant")
class WrongSize(Sound):
    """Builds a module for patches of another size than it says."""

    def build(self) -> TrunkModule:
        module = PlainModule()
        module.patch_size = 8
        return module


class SwappingModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        features = super().forward(images, reading)
        return features._replace(positions_BN2=features.positions_BN2.flip(-1))


@component("mutant")
class Swapping(Sound):
    """Gives column and row for row and column."""

    def build(self) -> TrunkModule:
        return SwappingModule()


class BlinkeredModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        patches_BNF = images.patches_BNF.clone()
        patches_BNF[:, 0] = 0
        return super().tokens(attrs.evolve(images, patches_BNF=patches_BNF), reading)


@component("mutant")
class Blinkered(Sound):
    """Does not look at the first patch."""

    def build(self) -> TrunkModule:
        return BlinkeredModule()


class SortingModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        return super().forward(images, attrs.evolve(reading, layers=tuple(sorted(reading.layers))))


@component("mutant")
class Sorting(Sound):
    """Gives layers in their own order, not in the one asked for."""

    def build(self) -> TrunkModule:
        return SortingModule()


class ScoringModule(PlainModule):
    def attention_maps(self, images: Images, reading: Reading) -> Tensor:
        tokens_BND = self.tokens(images, reading)
        return (tokens_BND @ tokens_BND.mT)[:, None]


@component("mutant")
class Scoring(Sound):
    """Shows attention before its softmax."""

    def build(self) -> TrunkModule:
        return ScoringModule()


class MixingModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        tokens_BND = super().tokens(images, reading)
        return tokens_BND + tokens_BND.mean(0)


@component("mutant")
class Mixing(Sound):
    """Adds the mean over the batch."""

    def build(self) -> TrunkModule:
        return MixingModule()


class TallModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        if images.grid.rows == 1:
            raise ValueError("a single row")
        return super().tokens(images, reading)


@component("mutant")
class Tall(Sound):
    """Cannot read a single row, and does not say so."""

    def build(self) -> TrunkModule:
        return TallModule()


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator before it draws its weights."""

    def build(self) -> TrunkModule:
        torch.manual_seed(0)
        return PlainModule()


@component("mutant")
class Unchecked(Sound):
    """Takes any depth, and fails to build a negative one."""

    depth: int = 2

    def build(self) -> TrunkModule:
        torch.empty(self.depth)
        return PlainModule()


class RandomModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        return super().tokens(images, reading) * (1 + torch.rand(()))


@component("mutant")
class Random(Sound):
    """Scales its tokens at random, also in evaluation."""

    def build(self) -> TrunkModule:
        return RandomModule()


class IdleModule(PlainModule):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(16, 16)


@component("mutant")
class Idle(Sound):
    """Has a layer that it never uses."""

    def build(self) -> TrunkModule:
        return IdleModule()


class BoxedModule(PlainModule):
    def __init__(self) -> None:
        super().__init__()
        self.box = Wrapping()

    def tokens(self, images: Images, reading: Reading) -> Tensor:
        return self.box(super().tokens(images, reading)).tokens  # type: ignore[no-any-return]


@component("mutant")
class Boxed(Sound):
    """Has a part that returns a dataclass."""

    def build(self) -> TrunkModule:
        return BoxedModule()


class InPlaceModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        images.patches_BNF.clamp_(-1, 1)
        return super().tokens(images, reading)


@component("mutant")
class InPlace(Sound):
    """Clips the pixels where they stand."""

    def build(self) -> TrunkModule:
        return InPlaceModule()


class BranchingModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        if images.patches_BNF.max() > 100:
            raise ValueError("not normalised")
        return super().tokens(images, reading)


@component("mutant")
class Branching(Sound):
    """Looks at the pixels to decide what to do."""

    def build(self) -> TrunkModule:
        return BranchingModule()


class ReachingModule(PlainModule):
    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Linear(48, 16)
        self.kept = (self.skip.weight, self.skip.bias)

    def tokens(self, images: Images, reading: Reading) -> Tensor:
        skipped_BND = functional.linear(images.patches_BNF, *self.kept)
        return super().tokens(images, reading) + skipped_BND


@component("mutant")
class Reaching(Sound):
    """Keeps the weight of a part, and uses it outside that part's forward."""

    def build(self) -> TrunkModule:
        return ReachingModule()


@component("mutant")
class Listing(Sound):
    """Says what it can by a tuple, which has no differences with sets."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return ("causal",)  # type: ignore[return-value]


class AlwaysCausalModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        return super().forward(images, attrs.evolve(reading, attention=CAUSAL))


@component("mutant")
class AlwaysCausal(Sound):
    """Reads causally, whatever is asked of it."""

    def build(self) -> TrunkModule:
        return AlwaysCausalModule()


class DeafModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        raster = super().forward(images, attrs.evolve(reading, order_BN=None))
        return raster._replace(positions_BN2=reorder(raster.positions_BN2, reading.order_BN))


@component("mutant")
class Deaf(Sound):
    """Reads in raster order in spite of the requested one."""

    def build(self) -> TrunkModule:
        return DeafModule()


class PeekingModule(PlainModule):
    def attention(self, images: Images, reading: Reading, valid_BN: Tensor) -> Attention:
        attention = super().attention(images, reading, valid_BN)
        given_B = attention.prefix_length_B
        length_B = torch.full((len(images.grids),), 1) if given_B is None else given_B
        return attrs.evolve(attention, prefix_length_B=length_B + 1)


@component("mutant")
class Peeking(Sound):
    """Sees one patch more than it may."""

    def build(self) -> TrunkModule:
        return PeekingModule()


class StrictModule(PlainModule):
    def attention(self, images: Images, reading: Reading, valid_BN: Tensor) -> Attention:
        return attrs.evolve(super().attention(images, reading, valid_BN), prefix_length_B=None)


@component("mutant")
class Strict(Sound):
    """Takes a prefix for nothing special."""

    def build(self) -> TrunkModule:
        return StrictModule()


class GlancingModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        if reading.order_BN is None or reading.order_BN.shape[1] == images.patches_BNF.shape[1]:
            return super().forward(images, reading)
        everything = super().forward(images, Reading())
        return everything._replace(
            tokens_BND=reorder(everything.tokens_BND, reading.order_BN),
            positions_BN2=reorder(everything.positions_BN2, reading.order_BN),
            valid_BN=reorder(everything.valid_BN, reading.order_BN),
        )


@component("mutant")
class Glancing(Sound):
    """Reads all patches, and gives the tokens of a part."""

    def build(self) -> TrunkModule:
        return GlancingModule()


class CrowdedModule(PlainModule):
    def attention(self, images: Images, reading: Reading, valid_BN: Tensor) -> Attention:
        return attrs.evolve(super().attention(images, reading, valid_BN), valid_BN=None)


@component("mutant")
class Crowded(Sound):
    """Attends to the steps that fill up the rows of a part."""

    def build(self) -> TrunkModule:
        return CrowdedModule()


class SheerModule(PlainModule):
    def tokens(self, images: Images, reading: Reading) -> Tensor:
        hidden = super().tokens(images, reading)
        return hidden + super().tokens(images, attrs.evolve(reading, masked_BN=None))


@component("mutant")
class Sheer(Sound):
    """Adds the mask token to a hidden patch instead of putting it in its place."""

    def build(self) -> TrunkModule:
        return SheerModule()


class PaddedModule(PlainModule):
    def attention(self, images: Images, reading: Reading, valid_BN: Tensor) -> Attention:
        return reading.attention


@component("mutant")
class Padded(Sound):
    """Attends to padding."""

    def build(self) -> TrunkModule:
        return PaddedModule()


class SmearingModule(PlainModule):
    def embed_patches(self, images: Images) -> Tensor:
        embedded_BND = super().embed_patches(images)
        return embedded_BND + embedded_BND.mean(1, keepdim=True)


@component("mutant")
class Smearing(Sound):
    """Adds the mean of all patches to each patch's embedding."""

    def build(self) -> TrunkModule:
        return SmearingModule()


class PlacingModule(PlainModule):
    def embed_patches(self, images: Images) -> Tensor:
        return super().embed_patches(images) + images.positions_BN2.sum(-1, keepdim=True)


@component("mutant")
class Placing(Sound):
    """Adds positions to the embeddings that it shows."""

    def build(self) -> TrunkModule:
        return PlacingModule()


class ClassedModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        features = super().forward(images, reading)
        mean_B1D = features.tokens_BND.mean(1, keepdim=True)
        return features._replace(extra_BRD=torch.cat([mean_B1D, 2 * mean_B1D], dim=1))


@component("classed")
class Classed(Sound):
    """Has a class token and a register, each made of the mean over patches."""

    @property
    def num_extra(self) -> int:
        return 2

    def build(self) -> TrunkModule:
        return ClassedModule()


class ConstantModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        features = super().forward(images, reading)
        return features._replace(extra_BRD=torch.ones_like(features.tokens_BND[:, :1]).repeat(1, 2, 1))


@component("mutant")
class Constant(Classed):
    """Gives a class token and a register that depend on nothing."""

    def build(self) -> TrunkModule:
        return ConstantModule()


class MergingModule(PlainModule):
    def forward(self, images: Images, reading: Reading) -> Features:
        return with_merged_columns(super().forward(images, reading), images.grid)


@component("merging")
class Merging(Sound):
    """Merges the tokens of two columns into one."""

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        return PatchGrid(grid.rows, grid.columns // 2)

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        if grid.columns % 2:
            yield "columns must be even"

    def build(self) -> TrunkModule:
        return MergingModule()


@component("mutant")
class Overstating(Merging):
    """Says that it keeps the grid, and merges tokens."""

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        return grid


SOUND = (StandInTrunk(), Classed(), Merging())
MUTANTS = (
    (checks.check_its_capabilities_are_known, Sound(abilities=("casual",))),
    (checks.check_its_capabilities_are_known, Listing()),
    (checks.check_features_have_the_declared_shapes, WrongSize()),
    (checks.check_positions_are_row_and_column_of_each_token, Swapping()),
    (checks.check_tokens_depend_on_the_pixels, Blinkered()),
    (checks.check_features_have_the_declared_shapes, Overstating()),
    (checks.check_extra_tokens_depend_on_the_pixels, Constant()),
    (checks.check_layers_are_the_requested_ones, Sorting()),
    (checks.check_attention_maps_are_shares_or_refused, Scoring()),
    (checks.check_images_do_not_mix, Mixing()),
    (checks.check_every_grid_is_read_or_refused, Tall()),
    (checks.check_weights_follow_torchs_seed, Reseeding()),
    (checks.check_what_it_accepts_can_be_built, Unchecked()),
    (checks.check_nothing_is_random_in_evaluation, Random()),
    (checks.check_every_weight_is_trained, Idle()),
    (checks.check_its_parts_return_tensors, Boxed()),
    (checks.check_images_are_left_as_they_were, InPlace()),
    (checks.check_a_dry_run_can_count_it, Branching()),
    (checks.check_it_trains_alike_at_zero_stages_0_and_3, Reaching()),
    (trunk_capabilities.check_it_reads_in_the_requested_order, Deaf(abilities=("order",))),
    (trunk_capabilities.check_causal_attention_sees_nothing_later, Peeking(abilities=("causal",))),
    (trunk_capabilities.check_it_looks_ahead_without_causal_attention, AlwaysCausal(abilities=("causal",))),
    (trunk_capabilities.check_prefix_attention_sees_the_prefix_and_nothing_later, Peeking(abilities=("prefix",))),
    (trunk_capabilities.check_prefix_attention_sees_the_prefix_and_nothing_later, Strict(abilities=("prefix",))),
    (trunk_capabilities.check_patches_that_are_not_read_change_nothing, Glancing(abilities=("subset",))),
    (trunk_capabilities.check_patches_that_are_not_read_change_nothing, Crowded(abilities=("subset",))),
    (trunk_capabilities.check_a_masked_patch_cannot_be_seen, Sheer(abilities=("mask",))),
    (trunk_capabilities.check_padding_changes_nothing, Padded(abilities=("native",))),
    (trunk_capabilities.check_patch_embeddings_are_those_of_single_patches, Smearing(abilities=("embeddings",))),
    (trunk_capabilities.check_patch_embeddings_have_no_positions, Placing(abilities=("embeddings",))),
)
