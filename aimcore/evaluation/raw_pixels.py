"""The images themselves as features: what a probe scores without any trunk.

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
from aimcore.evaluation.feature_writers import MemorySink, Sink, T_co, fill
from aimcore.modeling.positions import sincos_positions

DESCRIPTIONS: Mapping[Reads, str] = {
    "extra": "not measured: pixels have nothing beside patches",
    "pooled": "the normalised image, flattened channel by channel",
    "tokens": "the normalised patches, with the fixed sine-cosine position of each added",
}


def raw_pixel_features(
    batches: Iterable[Batch], reads: Sequence[Reads], *, num_classes: int
) -> Mapping[FeatureKind, FeatureTable]:
    """Features without a trunk, in memory.

    ``"pooled"`` is the flattened normalised image, channel by channel (C, H, W); ``"tokens"`` are its patches, see
    :func:`positioned_patches`. Both are kinds without layers.

    Args:
        batches: this process's share of the labelled images.
        reads: which of the two.
        num_classes: number of classes of the labels.

    Raises:
        InvalidValue: as :func:`aimcore.evaluation.extract_all`.
    """
    sinks = [MemorySink(FeatureKind(reads=each, layers=()), num_classes) for each in dict.fromkeys(reads)]
    return {sink.kind: table for sink, table in zip(sinks, read_pixels(batches, sinks), strict=True)}


def read_pixels(batches: Iterable[Batch], sinks: Sequence[Sink[T_co]]) -> list[T_co]:
    """Write the features of :func:`raw_pixel_features` to ``sinks``; the tables that they become."""

    def features_of(batch: Batch) -> list[Tensor]:
        return [_pixels(batch.images, sink.kind.reads) for sink in sinks]

    return fill(sinks, batches, torch.device("cpu"), features_of)


def positioned_patches(images: Images) -> Tensor:
    """``[B, N, F]`` patches plus fixed sine-cosine positions, as a trunk's own input has them.

    Without positions, attention could not tell one place from another. Positions need a width that is a multiple of
    4: patches of other sizes get up to three zeros at their end. However few values a patch has, it is not widened
    further: few values hold few frequencies, the highest ones first.
    """
    patches_BNF = functional.pad(images.patches_BNF, (0, -images.patches_BNF.shape[2] % 4))
    return patches_BNF + sincos_positions(images.positions_BN2, patches_BNF.shape[2])


def _pixels(images: Images, reads: Reads) -> Tensor:
    if not images.is_uniform:
        raise InvalidValue("probe", [("data", "raw pixels are features only where all images have one size")])
    return images.pixels_BCHW.flatten(1) if reads == "pooled" else positioned_patches(images)
