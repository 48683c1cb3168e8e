"""Feature extraction: features of labelled images from a frozen trunk, for probes.

Shape suffixes: B batch, N patches, D width; lower-case n is the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.features import Attention, Features, Reading
from aimcore.contracts.objectives import Objective
from aimcore.contracts.probes import Pooling, Reads
from aimcore.contracts.results import LabelledFeatures
from aimcore.contracts.trunks import TrunkModule
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.feature_tables import FeatureKind, FeatureTable
from aimcore.evaluation.feature_writers import FeatureWriter, MemoryWriter, T_co, fill
from aimcore.experiment import Precision

ProbeAttention = Literal["bidirectional", "causal"]


def extract_features(
    trunk: TrunkModule,
    batches: Iterable[Batch],
    *,
    objective: Objective,
    attention: ProbeAttention,
    layers: tuple[int, ...],
    reads: Reads,
    num_classes: int,
    precision: Precision = "fp32",
) -> LabelledFeatures:
    """Extract one kind of features; see :func:`extract_all`."""
    kind = FeatureKind(reads=reads, layers=layers)
    found = extract_all(
        trunk, batches, (kind,), objective=objective, attention=attention, num_classes=num_classes, precision=precision
    )
    return found[kind].of()


def extract_all(
    trunk: TrunkModule,
    batches: Iterable[Batch],
    kinds: Sequence[FeatureKind],
    *,
    objective: Objective,
    attention: ProbeAttention,
    num_classes: int,
    precision: Precision = "fp32",
) -> Mapping[FeatureKind, FeatureTable]:
    """Read all images once with a frozen trunk, and return every kind of features, in memory.

    The trunk reads in the objective's order with the probe's attention, and tokens are returned in raster order. Raw
    outputs of blocks are averaged, as in the released probes of arXiv:2401.08541.

    Args:
        trunk: the trunk; its modes are restored. Batches are moved to its device.
        batches: this process's share of the labelled images.
        kinds: the kinds of features to return.
        objective: determines the reading order.
        attention: the attention of the frozen trunk (arXiv:2401.08541, Table 3d).
        num_classes: number of classes of the labels.
        precision: anything but ``"fp32"`` runs under bfloat16 autocast.

    Raises:
        InvalidValue: a batch has no labels, or there is no batch.
    """
    writers = [MemoryWriter(kind, num_classes) for kind in dict.fromkeys(kinds)]
    tables = read_trunk(trunk, batches, writers, objective=objective, attention=attention, precision=precision)
    return {writer.kind: table for writer, table in zip(writers, tables, strict=True)}


def read_trunk(
    trunk: TrunkModule,
    batches: Iterable[Batch],
    writers: Sequence[FeatureWriter[T_co]],
    *,
    objective: Objective,
    attention: ProbeAttention,
    precision: Precision = "fp32",
) -> list[T_co]:
    """Like :func:`extract_all`, but write the features to ``writers``; return the table of each."""
    layers = tuple(sorted({layer for writer in writers for layer in writer.kind.layers}))

    def features_of(batch: Batch) -> Iterator[Tensor]:
        reading = frozen_reading(objective, batch, attention, layers)
        features = trunk(batch.images, reading)
        chosen, averaged = None, features
        for writer in writers:
            # One average is in memory at a time: with a writer per block, all of them would be as large as all blocks.
            if writer.kind.layers != chosen:
                chosen = writer.kind.layers
                averaged = _averaged(features, layers, chosen)
            yield _read_as(writer.kind, averaged, reading)

    with eval_mode(trunk, precision) as device:
        return fill(writers, batches, device, features_of)


def batch_features(
    trunk: TrunkModule,
    batch: Batch,
    kind: FeatureKind,
    *,
    objective: Objective | None,
    attention: ProbeAttention,
    precision: Precision = "fp32",
) -> Tensor:
    """Return the features of one batch, on the trunk's device, as :func:`extract_all` computes them."""
    with eval_mode(trunk, precision) as device:
        batch = batch.to(device)
        reading = frozen_reading(objective, batch, attention, tuple(sorted(kind.layers)))
        features = trunk(batch.images, reading)
        return _read_as(kind, _averaged(features, tuple(sorted(kind.layers)), kind.layers), reading)


def frozen_reading(
    objective: Objective | None, batch: Batch, attention: ProbeAttention, layers: tuple[int, ...]
) -> Reading:
    """Return the objective's reading of a batch (None: raster order), with the probe's attention and layers instead.

    Padding comes last in every order, so its positions are the same in raster order and in reading order.
    """
    valid_BN = batch.images.valid_BN if batch.images.is_padded else None
    seen = Attention(causal=attention == "causal", valid_BN=valid_BN)
    reading = Reading() if objective is None else objective.probe_reading(batch)
    return attrs.evolve(reading, attention=seen, layers=layers)


def _averaged(features: Features, layers: tuple[int, ...], chosen: tuple[int, ...]) -> Features:
    """Return ``features``, which hold the outputs of ``layers``, with the average of ``chosen`` layers as tokens."""
    if not chosen:
        return features._replace(tokens_BND=features.tokens_BND.float(), layers=())
    # Sums are accumulated: a stack of all layers would be copied once and read twice.
    total_BND = torch.zeros_like(features.layers[0], dtype=torch.float32)
    for layer in chosen:
        total_BND += features.layers[layers.index(layer)]
    return features._replace(tokens_BND=total_BND.div_(len(chosen)), layers=())


def _read_as(kind: FeatureKind, features: Features, reading: Reading) -> Tensor:
    """Return the features of ``kind``: tokens in raster order (NaN at padding), one pooled vector, or extra tokens."""
    if kind.reads == "extra":
        return _extra(features)
    if kind.reads == "pooled":
        return _pooled(kind.pooling, features)
    is_whole = bool(features.valid_BN.all())
    in_raster = features if reading.order_BN is None else features.raster()
    if is_whole:
        return in_raster.tokens_BND
    return in_raster.tokens_BND.masked_fill(~in_raster.valid_BN[..., None], torch.nan)


def _pooled(pooling: Pooling, features: Features) -> Tensor:
    """Return ``[B, D]``, or ``[B, 2 * D]`` for class token and mean; the mean excludes padding."""
    if pooling == "class":
        return _extra(features)[:, 0]
    is_whole = bool(features.valid_BN.all())
    mean_BD = features.tokens_BND.mean(1) if is_whole else _mean_over_valid(features.tokens_BND, features.valid_BN)
    return mean_BD if pooling == "mean" else torch.cat([_extra(features)[:, 0], mean_BD], dim=1)


def _extra(features: Features) -> Tensor:
    if features.extra_BRD is None:
        raise InvalidValue("probe", [("trunk", "it has no extra tokens, which a probe reads")])
    return features.extra_BRD.float()


def _mean_over_valid(tokens_BND: Tensor, valid_BN: Tensor) -> Tensor:
    kept_BND = torch.where(valid_BN[..., None], tokens_BND, 0.0)
    return kept_BND.sum(1) / valid_BN.sum(1, keepdim=True)
