"""Stand-ins for the other parts of an experiment while one component is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, get_args

import attrs
import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Batch
from aimcore.contracts.component import component
from aimcore.contracts.features import Attention, Capability, Features, Reading
from aimcore.contracts.heads import Head, HeadModule
from aimcore.contracts.images import Images, PatchGrid, reorder
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.contracts.results import Loss
from aimcore.contracts.sources import OpenSource, Source
from aimcore.contracts.trunks import Trunk, TrunkModule
from aimcore.modeling.attention import mask_of
from aimcore.modeling.layers import MaskToken, TransformerBlock
from aimcore.modeling.positions import sincos_positions

ALL_CAPABILITIES: frozenset[Capability] = frozenset(get_args(Capability))
"""All capabilities of the core."""


@component("stand_in")
class StandInTrunk(Trunk):
    """A tiny transformer with all capabilities of trunks."""

    patch_size: int = 4

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All capabilities."""
        return ALL_CAPABILITIES

    def build(self) -> StandInTrunkModule:
        """The module."""
        return StandInTrunkModule(self.patch_size)


class StandInTrunkModule(TrunkModule):
    """The module of :class:`StandInTrunk`: two blocks of width 16."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.width, self.depth, self.patch_size, self.num_channels = 16, 2, patch_size, 3
        self.embed = nn.Linear(patch_size**2 * self.num_channels, self.width)
        self.mask_token = MaskToken(self.width)
        self.blocks = nn.ModuleList(TransformerBlock(self.width, 2, 32) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` describes."""
        tokens_BND = reorder(self.tokens(images, reading), reading.order_BN)
        valid_BN = reorder(images.valid_BN, reading.order_BN)
        mask = mask_of(self.attention(images, reading, valid_BN), tokens_BND.shape[1], tokens_BND.device)
        outputs = []
        for block in self.blocks:
            tokens_BND = block(tokens_BND, mask)
            outputs.append(tokens_BND)
        positions_BN2 = reorder(images.positions_BN2, reading.order_BN)
        layers = tuple(outputs[index] for index in reading.layers)
        return Features(self.norm(tokens_BND), positions_BN2, valid_BN, layers)

    def embed_patches(self, images: Images) -> Tensor:
        """Return embedded patches without positions."""
        embedded_BND: Tensor = self.embed(images.patches_BNF)
        return embedded_BND

    def tokens(self, images: Images, reading: Reading) -> Tensor:
        """Return embedded patches with positions, in raster order."""
        tokens_BND = self.embed_patches(images)
        if reading.masked_BN is not None:
            tokens_BND = self.mask_token(tokens_BND, reading.masked_BN)
        return tokens_BND + sincos_positions(images.positions_BN2, self.width).to(tokens_BND.dtype)

    def attention(self, images: Images, reading: Reading, valid_BN: Tensor) -> Attention:
        """Return the attention of ``reading`` with padding masked."""
        if not images.is_padded:
            return reading.attention
        given_BN = reading.attention.valid_BN
        return attrs.evolve(reading.attention, valid_BN=valid_BN if given_BN is None else valid_BN & given_BN)


@component("stand_in_merging")
class MergingTrunk(StandInTrunk):
    """A tiny transformer that reads in raster order only, and merges the tokens of two columns into one."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All but those that concern single patches."""
        return ALL_CAPABILITIES - {"order", "subset", "native"}

    def output_grid(self, grid: PatchGrid) -> PatchGrid:
        """Return a grid of half as many columns."""
        return PatchGrid(grid.rows, grid.columns // 2)

    def build(self) -> StandInTrunkModule:
        """The module."""
        return MergingTrunkModule(self.patch_size)


class MergingTrunkModule(StandInTrunkModule):
    """The module of :class:`MergingTrunk`."""

    def forward(self, images: Images, reading: Reading) -> Features:
        """Read ``images`` as ``reading`` describes; it must ask for no order."""
        if reading.order_BN is not None:
            raise ValueError("the trunk merges tokens in raster order, and is asked to read in another order")
        return with_merged_columns(super().forward(images, reading), images.grid)


def with_merged_columns(features: Features, grid: PatchGrid) -> Features:
    """Average the features of two columns of ``grid``, which are in raster order."""
    merged = PatchGrid(grid.rows, grid.columns // 2)
    index_N = torch.arange(merged.num_patches, device=features.tokens_BND.device)
    positions_N2 = torch.stack([index_N // merged.columns, index_N % merged.columns], dim=1)
    tokens_BND, *layers = (
        each.reshape(len(each), merged.num_patches, 2, -1).mean(2) for each in (features.tokens_BND, *features.layers)
    )
    return Features(tokens_BND, positions_N2.expand(len(tokens_BND), -1, -1), features.valid_BN[:, ::2], tuple(layers))


@component("stand_in")
class StandInHead(Head):
    """A linear head."""

    def build(self, in_width: int, num_outputs: int) -> HeadModule:
        """The module."""
        return StandInHeadModule(in_width, num_outputs)


class StandInHeadModule(HeadModule):
    """The module of :class:`StandInHead`."""

    def __init__(self, in_width: int, num_outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(in_width, num_outputs)

    def forward(self, features: Features, attention: Attention, where_M: Tensor) -> Tensor:
        """``[M, K]`` predictions."""
        tokens_MD, _ = features.at(where_M)
        predictions: Tensor = self.out(tokens_MD)
        return predictions


@component("stand_in")
class StandInObjective(Objective):
    """Predicts the mean of each patch from the patch itself: it trains any trunk."""

    def build(self, trunk: TrunkModule) -> ObjectiveModule:
        """The module, with a linear head."""
        return StandInObjectiveModule(trunk, StandInHeadModule(trunk.width, 1), Reading())


class StandInObjectiveModule(ObjectiveModule):
    """The module of :class:`StandInObjective`, for a head and a reading of one's choice."""

    def __init__(self, trunk: TrunkModule, head: HeadModule, reading: Reading) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.reading = reading

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of patches."""
        return {"patch_mean": batch.images.patches_BNF[..., 0].numel()}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the squared error between the mean output and the mean of each patch."""
        patches_BNF = batch.images.patches_BNF
        features = self.trunk(batch.images, self.reading)
        where_M = torch.arange(self.counts(batch)["patch_mean"], device=patches_BNF.device)
        where_M = where_M % features.valid_BN.numel()  # a trunk that merges tokens has fewer than patches
        predictions_MK = self.head(features, self.reading.attention, where_M)
        loss_M = (predictions_MK.mean(-1) - patches_BNF.mean(-1).flatten()).square()
        return {"patch_mean": Loss(loss_M.sum(), torch.tensor(len(loss_M)))}


@component("stand_in")
class StandInOptimizer(Optimizer):
    """AdamW."""

    elementwise: ClassVar[bool] = True
    eps: float = 1e-8

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Build torch's AdamW with the decay of arXiv:2401.08541, Table 10."""
        own = [{"params": list(group.parameters), "weight_decay": 0.05 * group.decays} for group in groups]
        return torch.optim.AdamW(own, lr=self.peak_lr, betas=(0.9, 0.95), eps=self.eps)


@component("stand_in")
class StandInSource(Source):
    """A source that is never read."""

    def open(self) -> OpenSource:
        """Raise NotImplementedError: the engine receives batches directly."""
        raise NotImplementedError
