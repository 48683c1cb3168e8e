"""Objectives, each broken in one way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import torch
from core.testing.mutants.heads import Wrapping
from torch import Tensor
from torch.nn import functional

from aimcore import (
    Batch,
    Capability,
    Features,
    Head,
    HeadModule,
    Images,
    Loss,
    ObjectiveModule,
    PatchGrid,
    Reading,
    TrunkModule,
    component,
)
from aimcore.contracts.objectives import PredictedPatches
from aimcore.testing.checks import objectives as checks
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_objectives.next_patch import NextPatchModule
from aimcore_objectives.steps import Steps

LINEAR = LinearHead()


@component("sound")
class Sound(NextPatch):
    """Next patch, without a prefix unless one is asked for."""

    head: Head = LINEAR
    prefix: int | str | None = None

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return NextPatchModule(self, trunk)


@component("mutant")
class Unknown(Sound):
    """Requires a capability that does not exist."""

    @property
    def requires(self) -> frozenset[Capability]:
        return frozenset({"casual"})  # type: ignore[arg-type]


@component("mutant")
class Listing(Sound):
    """Says what it needs by a list, which has no differences with sets."""

    @property
    def requires(self) -> frozenset[Capability]:
        return ["causal", "order"]  # type: ignore[return-value]


class ChangedModule(NextPatchModule):
    """Changes the loss."""

    def changed(self, loss: Loss) -> Loss:
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Loss]:
        return {"next_patch": self.changed(super().forward(batch)["next_patch"])}


class MiscountingModule(NextPatchModule):
    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {name: count + 1 for name, count in super().counts(batch).items()}


@component("mutant")
class Miscounting(Sound):
    """Counts one target too many in advance."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return MiscountingModule(self, trunk)


class DoublingModule(ChangedModule):
    def changed(self, loss: Loss) -> Loss:
        return loss._replace(sum=2 * loss.sum)


@component("mutant")
class Doubling(Sound):
    """Gives twice the sum of its losses per step."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return DoublingModule(self, trunk)


class UnshiftedModule(NextPatchModule):
    def _read(self, batch: Batch) -> tuple[Features, Tensor, Steps]:
        features, where_M, steps = super()._read(batch)
        return features, where_M + 1, steps


@component("mutant")
class Unshifted(Sound):
    """Predicts each patch from the token at the patch itself."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return UnshiftedModule(self, trunk)


class SecretiveModule(ChangedModule):
    def changed(self, loss: Loss) -> Loss:
        return loss._replace(per_position_BN=None)


@component("mutant")
class Secretive(Sound):
    """Gives no losses per step."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return SecretiveModule(self, trunk)


class MixingModule(ChangedModule):
    def changed(self, loss: Loss) -> Loss:
        assert loss.per_position_BN is not None
        return loss._replace(per_position_BN=loss.per_position_BN.roll(1, dims=0))


@component("mutant")
class Mixing(Sound):
    """Takes one image's losses for another's."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return MixingModule(self, trunk)


class AveragingModule(ChangedModule):
    def changed(self, loss: Loss) -> Loss:
        assert loss.per_position_BN is not None
        number = len(loss.per_position_BN)
        return loss._replace(sum=loss.sum / number, per_position_BN=loss.per_position_BN / number)


@component("mutant")
class Averaging(Sound):
    """Gives means over the images of a batch."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return AveragingModule(self, trunk)


class NoisyModule(ChangedModule):
    def changed(self, loss: Loss) -> Loss:
        assert loss.per_position_BN is not None
        scale = 1 + torch.rand(()) if self.training else torch.ones(())
        return loss._replace(sum=loss.sum * scale, per_position_BN=loss.per_position_BN * scale)


@component("mutant")
class Noisy(Sound):
    """Draws a weight from torch's generator in training."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return NoisyModule(self, trunk)


class AlwaysTrainingModule(NextPatchModule):
    def train(self, mode: bool = True) -> Self:
        return super().train(True)


@component("mutant")
class AlwaysTraining(Sound):
    """Draws prefixes in validation as in training."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return AlwaysTrainingModule(self, trunk)


class Detached(TrunkModule):
    def __init__(self, inner: TrunkModule) -> None:
        super().__init__()
        self.inner = inner
        self.width, self.depth = inner.width, inner.depth
        self.patch_size, self.num_channels = inner.patch_size, inner.num_channels

    def forward(self, images: Images, reading: Reading) -> Features:
        features: Features = self.inner(images, reading)
        return features._replace(tokens_BND=features.tokens_BND.detach())


@component("mutant")
class Fixed(Sound):
    """Trains its head on a trunk that stays as it is."""

    @property
    def requires(self) -> frozenset[Capability]:
        return frozenset()

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return NextPatchModule(self, Detached(trunk))


@component("mutant")
class Undemanding(Sound):
    """Does not refuse images of a single patch, which leave nothing to predict."""

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        return ()


@component("mutant")
class Unbatched(Sound):
    """Gives one order for all images where each has its own."""

    def probe_reading(self, batch: Batch) -> Reading:
        return Reading(order_BN=self.ordering.permutation(batch.images.grid))


class SketchingModule(NextPatchModule):
    def predicted_patches(self, batch: Batch) -> PredictedPatches:
        patches_BNF = batch.images.patches_BNF
        return PredictedPatches(patches_BNF, torch.ones(patches_BNF.shape[:2]))


@component("mutant")
class Sketching(Sound):
    """Says in floats which patches it predicts."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return SketchingModule(self, trunk)


@component("mutant")
class Reseeding(Sound):
    """Seeds torch's global generator before it builds its head."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        torch.manual_seed(0)
        return NextPatchModule(self, trunk)


class BoxedHead(HeadModule):
    def __init__(self, inner: HeadModule) -> None:
        super().__init__()
        self.inner = inner
        self.box = Wrapping()

    def forward(self, features: Features, attention: object, where_M: Tensor) -> Tensor:
        return self.box(self.inner(features, attention, where_M)).tokens  # type: ignore[no-any-return]


@component("mutant")
class Boxed(Sound):
    """Has a part that returns a dataclass."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = NextPatchModule(self, trunk)
        module.head = BoxedHead(module.head)
        return module


class InPlaceModule(NextPatchModule):
    def forward(self, batch: Batch) -> dict[str, Loss]:
        assert batch.labels_B is not None
        batch.labels_B.zero_()
        return super().forward(batch)


@component("mutant")
class InPlace(Sound):
    """Overwrites the labels where they stand."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return InPlaceModule(self, trunk)


class BranchingModule(NextPatchModule):
    def forward(self, batch: Batch) -> dict[str, Loss]:
        if batch.images.patches_BNF.max() > 100:
            raise ValueError("not normalised")
        return super().forward(batch)


@component("mutant")
class Branching(Sound):
    """Looks at the pixels to decide what to do."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return BranchingModule(self, trunk)


class Shortcut(HeadModule):
    def __init__(self, inner: HeadModule) -> None:
        super().__init__()
        self.inner = inner
        self.kept = tuple(inner.parameters())

    def forward(self, features: Features, attention: object, where_M: Tensor) -> Tensor:
        return functional.linear(features.at(where_M)[0], *self.kept)


@component("mutant")
class Reaching(Sound):
    """Keeps the weight of its head, and uses it outside the head's forward."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        module = NextPatchModule(self, trunk)
        module.head = Shortcut(module.head)
        return module


@component("mutant")
class Careless(Sound):
    """Says that it accepts any grid, and scores each token as the patch of its number."""

    @property
    def any_grid(self) -> bool:
        return True


SOUND = (Sound(), Sound(prefix="uniform"), Sound(prefix=3))
MUTANTS = (
    (checks.check_its_requirements_are_known, Unknown()),
    (checks.check_its_requirements_are_known, Listing()),
    (checks.check_counts_are_known_before_any_forward, Miscounting()),
    (checks.check_losses_per_step_add_up, Doubling()),
    (checks.check_nothing_scored_reads_its_own_answer, Unshifted()),
    (checks.check_nothing_scored_reads_its_own_answer, Secretive()),
    (checks.check_images_do_not_mix, Mixing()),
    (checks.check_a_batch_is_the_sum_of_its_parts, Averaging()),
    (checks.check_randomness_belongs_to_the_sample, Noisy()),
    (checks.check_validation_is_the_same_for_every_run, AlwaysTraining(prefix="uniform")),
    (checks.check_the_trunk_is_trained, Fixed()),
    (checks.check_every_grid_is_trained_on_or_refused, Undemanding()),
    (checks.check_any_grid_means_tokens_of_any_grid, Careless()),
    (checks.check_its_reading_is_an_order_of_the_patches, Unbatched()),
    (checks.check_pictures_are_patches_or_refused, Sketching()),
    (checks.check_weights_follow_torchs_seed, Reseeding()),
    (checks.check_its_parts_return_tensors, Boxed()),
    (checks.check_the_batch_is_left_as_it_was, InPlace()),
    (checks.check_a_dry_run_can_count_it, Branching()),
    (checks.check_it_trains_alike_at_zero_stages_0_and_3, Reaching()),
)
