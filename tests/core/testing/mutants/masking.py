"""Objectives that need nothing of a trunk and mask pixels themselves, sound and broken."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import attrs
import torch
from torch import Tensor, nn

from aimcore import (
    Batch,
    Features,
    Head,
    Images,
    Loss,
    Objective,
    ObjectiveModule,
    PatchGrid,
    Reading,
    TrunkModule,
    component,
)
from aimcore.testing.checks import objectives as checks
from aimcore_heads import LinearHead
from aimcore_objectives import MaskedPatch
from aimcore_objectives.masked_patch import MaskedPatchModule


@component("sound")
class Sound(Objective):
    """Every second patch from the others: zeros are read in its place. It asks nothing of the trunk."""

    def problems_with(self, grid: PatchGrid) -> Iterable[str]:
        if grid.num_patches < 2:
            yield "there is no second patch"

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return MaskingModule(trunk)


class MaskingModule(ObjectiveModule):
    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.width, self.num_outputs(trunk))

    def num_outputs(self, trunk: TrunkModule) -> int:
        return trunk.num_channels * trunk.patch_size**2

    def counts(self, batch: Batch) -> Mapping[str, int]:
        return {"masked": len(batch.images.grids) * (batch.images.patches_BNF.shape[1] // 2)}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        images = batch.images
        masked_N = torch.arange(images.patches_BNF.shape[1]) % 2 == 1
        predictions_BNK = self.head(self.features(images, masked_N).tokens_BND)
        loss_BN = (predictions_BNK - self.values(batch).to(predictions_BNK.dtype)).square().mean(-1)
        per_position_BN = torch.where(masked_N.to(loss_BN.device), loss_BN, torch.nan)
        number = torch.tensor(self.counts(batch)["masked"])
        return {"masked": Loss(per_position_BN.nansum(), number, 1.0, per_position_BN, self.scored_patches(images))}

    def features(self, images: Images, masked_N: Tensor) -> Features:
        features: Features = self.trunk(self.read(images, masked_N), Reading())
        return features

    def read(self, images: Images, masked_N: Tensor) -> Images:
        patches_BNF = images.patches_BNF
        return attrs.evolve(images, patches_BNF=patches_BNF * ~masked_N.to(patches_BNF.device)[:, None])

    def values(self, batch: Batch) -> Tensor:
        return batch.images.patches_BNF

    def scored_patches(self, images: Images) -> Tensor | None:
        return None


class PeekingModule(MaskingModule):
    def read(self, images: Images, masked_N: Tensor) -> Images:
        return images


@component("mutant")
class Peeking(Sound):
    """Reads the patches that it predicts, and asks nothing of the trunk."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return PeekingModule(trunk)


class LabelledModule(PeekingModule):
    def num_outputs(self, trunk: TrunkModule) -> int:
        return 1

    def values(self, batch: Batch) -> Tensor:
        assert batch.labels_B is not None
        return batch.labels_B[:, None, None].expand(-1, batch.images.patches_BNF.shape[1], 1)


@component("sound")
class Labelled(Sound):
    """The label of the image from every second patch: nobody can read it in the pixels."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return LabelledModule(trunk)


class EvaluatingACopyModule(MaskingModule):
    def __init__(self, trunk: TrunkModule) -> None:
        super().__init__(trunk)
        self.copy = copy.deepcopy(trunk).requires_grad_(False)

    def features(self, images: Images, masked_N: Tensor) -> Features:
        if self.training:
            return super().features(images, masked_N)
        features: Features = self.copy(self.read(images, masked_N), Reading())
        return features


@component("sound")
class EvaluatingACopy(Sound):
    """Evaluates with a copy of the trunk."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return EvaluatingACopyModule(trunk)


class PeekingCopyModule(EvaluatingACopyModule):
    def read(self, images: Images, masked_N: Tensor) -> Images:
        return super().read(images, masked_N) if self.training else images


@component("mutant")
class PeekingCopy(Sound):
    """Evaluates with a copy of the trunk, which reads the patches that are predicted."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return PeekingCopyModule(trunk)


class TaughtModule(EvaluatingACopyModule):
    """Predicts the tokens of a copy of the trunk that reads whole images."""

    def num_outputs(self, trunk: TrunkModule) -> int:
        return trunk.width

    def features(self, images: Images, masked_N: Tensor) -> Features:
        return MaskingModule.features(self, images, masked_N)

    def values(self, batch: Batch) -> Tensor:
        features: Features = self.copy(batch.images, Reading())
        return features.tokens_BND.detach()

    def scored_patches(self, images: Images) -> Tensor | None:
        length = images.patches_BNF.shape[1]
        return torch.arange(length).expand(len(images.grids), length)


@component("sound")
class Taught(Sound):
    """Masked tokens of a teacher, which depend on every patch, by the place of each."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return TaughtModule(trunk)


class MisplacedModule(TaughtModule):
    def scored_patches(self, images: Images) -> Tensor | None:
        patch_BN = super().scored_patches(images)
        assert patch_BN is not None
        return patch_BN.roll(1, dims=1)


@component("mutant")
class Misplaced(Sound):
    """Says of each of its losses that it scores the patch before."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return MisplacedModule(trunk)


class BeyondModule(TaughtModule):
    def scored_patches(self, images: Images) -> Tensor | None:
        patch_BN = super().scored_patches(images)
        assert patch_BN is not None
        return patch_BN + 1


@component("mutant")
class Beyond(Sound):
    """Counts the places of its losses from 1."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        return BeyondModule(trunk)


class LeakingTokenModule(MaskedPatchModule):
    """Leaves the first masked patch of every image in the input."""

    def __init__(self, config: MaskedPatch, trunk: TrunkModule) -> None:
        super().__init__(config, trunk)
        self.trunk.register_forward_pre_hook(lambda _, given: (given[0], self.with_a_gap(given[1])))

    def with_a_gap(self, reading: Reading) -> Reading:
        assert reading.masked_BN is not None
        first_B1 = reading.masked_BN.int().argmax(1, keepdim=True)
        return attrs.evolve(reading, masked_BN=reading.masked_BN.scatter(1, first_B1, False))


@component("mutant")
class LeakingToken(MaskedPatch):
    """Masks all patches that it predicts but one."""

    head: Head = LinearHead()

    def build(self, trunk: TrunkModule) -> MaskedPatchModule:
        return LeakingTokenModule(self, trunk)


SOUND = (Sound(), Labelled(), EvaluatingACopy(), Taught())
MUTANTS = (
    (checks.check_nothing_scored_reads_its_own_answer, Peeking()),
    (checks.check_nothing_scored_reads_its_own_answer, PeekingCopy()),
    (checks.check_nothing_scored_reads_its_own_answer, Misplaced()),
    (checks.check_nothing_scored_reads_its_own_answer, Beyond()),
    (checks.check_nothing_scored_reads_its_own_answer, LeakingToken()),
)
