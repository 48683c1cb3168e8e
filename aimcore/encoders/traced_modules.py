"""The modules that an encoder's ONNX graphs are traced from.

Shape suffixes: B batch, C channels, H W pixels, N patches, F values of a patch, D width, T text tokens, E embedding
width, R C rows and columns of patches.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aimcore.contracts.batches import Text
from aimcore.contracts.features import Features, Reading
from aimcore.contracts.images import Images, PatchGrid, patchify
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.encoders.encoder import Encoder


@attrs.frozen(eq=False)
class TracedImages(Images):
    """A batch whose number of images, and whose grid if it is free, are symbols of a graph and not numbers."""

    rows: int = attrs.field(kw_only=True)
    columns: int = attrs.field(kw_only=True)
    is_free: bool = attrs.field(kw_only=True)
    """Whether the grid is free; then :attr:`grids` is only an example."""

    @property
    def is_uniform(self) -> bool:
        """False if the grid is free: positions are computed, and no table of one grid is used."""
        return not self.is_free

    @property
    def is_padded(self) -> bool:
        """False: all images have one size."""
        return False

    @property
    def grid(self) -> PatchGrid:
        """The fixed grid."""
        return self.grids[0]

    @property
    def valid_BN(self) -> Tensor:
        """True everywhere."""
        return torch.ones_like(self.patches_BNF[..., 0], dtype=torch.bool)

    @property
    def positions_BN2(self) -> Tensor:
        """(row, column) of every patch."""
        rows_RC = torch.arange(self.rows)[:, None].expand(-1, self.columns)
        columns_RC = torch.arange(self.columns).expand(self.rows, -1)
        positions_N2 = torch.stack([rows_RC, columns_RC], dim=-1).flatten(0, 1)
        return positions_N2.expand(self.patches_BNF.shape[0], -1, -1)


class ImageGraph(nn.Module):
    """Pixels to tokens, their mean, and the embedding of an image tower."""

    def __init__(self, encoder: Encoder, grid: PatchGrid, is_free: bool, towers: bool) -> None:
        super().__init__()
        self.trunk = encoder.module
        self.objective: ObjectiveModule | None = encoder.objective_module if towers else None
        self.grid, self.is_free, self.layers = grid, is_free, encoder.probe_layers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``[B, C, H, W]`` in."""
        side = self.trunk.patch_size
        traced = TracedImages(
            patches_BNF=patchify(images, side), grids=(self.grid,), patch_size=side,
            rows=images.shape[2] // side, columns=images.shape[3] // side, is_free=self.is_free,
        )  # fmt: skip
        # forward, because the checks of a plugin's outputs would turn symbols into numbers.
        features = self.trunk.forward(traced, Reading(layers=self.layers))
        outputs = features.tokens_BND, _pooled(features)
        return outputs if self.objective is None else (*outputs, self._embedding(self.objective, traced, features))

    def _embedding(self, objective: Any, traced: Images, features: Features) -> Tensor:
        """``[B, E]``: the image tower on features that were read already."""
        objective.trunk = _ReadAlready(self.trunk, features)
        try:
            embedding_BE: Tensor = objective.embed_images(traced)
        finally:
            objective.trunk = self.trunk
        return embedding_BE


class _ReadAlready(nn.Module):
    """Stands for a trunk: returns features whatever it is given, and has the parts of the trunk."""

    def __init__(self, trunk: nn.Module, features: Features) -> None:
        super().__init__()
        self.trunk, self.features = trunk, features

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the trunk: an image tower may use a part of it, as CLIP's uses its last norm."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("trunk"), name)

    def forward(self, images: Images, reading: Reading) -> Features:
        """Return the features."""
        return self.features


class TextGraph(nn.Module):
    """Ids of texts to embeddings."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        assert encoder.objective_module is not None, "two towers have an objective"
        self.objective = encoder.objective_module

    def forward(self, ids: Tensor) -> Tensor:
        """``[B, T]`` in. Every text has an end token, at which it is read; without one, its last token counts."""
        embed: Any = self.objective
        embedding_BE: Tensor = embed.embed_texts(Text(ids_BT=ids, valid_BT=torch.ones_like(ids, dtype=torch.bool)))
        return embedding_BE


def _pooled(features: Features) -> Tensor:
    tokens_BND = torch.stack(features.layers).mean(0) if features.layers else features.tokens_BND
    return tokens_BND.mean(1)
