"""Raw pixels as features: the baseline of a probe without a trunk.

Shape suffixes: B batch, N patches, F values per patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.images import Images
from aimcore.contracts.probes import Reads
from aimcore.evaluation.feature_tables import FeatureKind, FeatureTable
from aimcore.evaluation.feature_writers import FeatureWriter, MemoryWriter, T_co, fill
from aimcore.modeling.positions import sincos_positions

DESCRIPTIONS: Mapping[Reads, str] = {
    "extra": "not measured: pixels have nothing beside patches",
    "pooled": "the normalised image, flattened channel by channel",
    "tokens": "the normalised patches, with the fixed sine-cosine position of each added",
}


def raw_pixel_features(
    batches: Iterable[Batch], reads: Sequence[Reads], *, num_classes: int
) -> Mapping[FeatureKind, FeatureTable]:
    """Return features without a trunk, in memory.

    ``"pooled"`` is the flattened normalised image, channel by channel (C, H, W); ``"tokens"`` are its patches, see
    :func:`positioned_patches`. Both are kinds without layers.

    Args:
        batches: this process's share of the labelled images.
        reads: ``"pooled"``, ``"tokens"`` or both.
        num_classes: number of classes of the labels.

    Raises:
        InvalidValue: as for :func:`aimcore.evaluation.extract_all`.
    """
    writers = [MemoryWriter(FeatureKind(reads=each, layers=()), num_classes) for each in dict.fromkeys(reads)]
    return {writer.kind: table for writer, table in zip(writers, read_pixels(batches, writers), strict=True)}


def read_pixels(batches: Iterable[Batch], writers: Sequence[FeatureWriter[T_co]]) -> list[T_co]:
    """Write the features of :func:`raw_pixel_features` to ``writers``; return the table of each."""

    def features_of(batch: Batch) -> list[Tensor]:
        return [pixel_features(batch.images, writer.kind.reads) for writer in writers]

    return fill(writers, batches, torch.device("cpu"), features_of)


def positioned_patches(images: Images) -> Tensor:
    """Return patches ``[B, N, F]`` plus fixed sine-cosine positions, like the input of a trunk.

    Without positions, attention could not distinguish patches by position. Positions need a width that is a multiple of
    4, so other patches are padded with up to three zeros. Narrow patches are not widened further: they hold fewer
    frequencies, the highest ones first.
    """
    patches_BNF = functional.pad(images.patches_BNF, (0, -images.patches_BNF.shape[2] % 4))
    return patches_BNF + sincos_positions(images.positions_BN2, patches_BNF.shape[2])


def pixel_features(images: Images, reads: Reads) -> Tensor:
    """Return the features of :func:`raw_pixel_features` of one batch."""
    if not images.is_uniform:
        raise InvalidValue("probe", [("data", "raw pixels are features only where all images have one size")])
    return images.pixels_BCHW.flatten(1) if reads == "pooled" else positioned_patches(images)
