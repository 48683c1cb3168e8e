"""Features for probes: what a frozen trunk makes of labelled images.

Shape suffixes: B batch, N patches, D width; lower-case n is the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from aimcore.evaluation.eval_mode import frozen
from aimcore.evaluation.feature_tables import FeatureKind, FeatureTable
from aimcore.evaluation.feature_writers import MemorySink, Sink, T_co, fill
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
    """One kind of features; see :func:`extract_all`."""
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
    """Read all images once with a frozen trunk, and give every kind of features of them, in memory.

    The trunk reads in the objective's order with the probe's attention, and the tokens are put back in raster order:
    blocks' raw outputs are averaged, as the released probes of arXiv:2401.08541 do.

    Args:
        trunk: any trunk; it is left as it was. Batches are moved to its device.
        batches: this process's share of the labelled images.
        kinds: the features wanted.
        objective: whose reading order is used.
        attention: who sees whom in the frozen trunk (arXiv:2401.08541, Table 3d).
        num_classes: number of classes of the labels.
        precision: anything but ``"fp32"`` runs under bfloat16 autocast.

    Raises:
        InvalidValue: a batch has no labels, or there is no batch.
    """
    sinks = [MemorySink(kind, num_classes) for kind in dict.fromkeys(kinds)]
    tables = read_trunk(trunk, batches, sinks, objective=objective, attention=attention, precision=precision)
    return {sink.kind: table for sink, table in zip(sinks, tables, strict=True)}


def read_trunk(
    trunk: TrunkModule,
    batches: Iterable[Batch],
    sinks: Sequence[Sink[T_co]],
    *,
    objective: Objective,
    attention: ProbeAttention,
    precision: Precision = "fp32",
) -> list[T_co]:
    """As :func:`extract_all`, to whatever ``sinks`` make of the features: one table each."""
    layers = tuple(sorted({layer for sink in sinks for layer in sink.kind.layers}))

    def features_of(batch: Batch) -> list[Tensor]:
        reading = frozen_reading(objective, batch, attention, layers)
        features = trunk(batch.images, reading)
        averaged = {chosen: _averaged(features, layers, chosen) for chosen in {sink.kind.layers for sink in sinks}}
        return [_read_as(sink.kind, averaged[sink.kind.layers], reading) for sink in sinks]

    with frozen(trunk, precision) as device:
        return fill(sinks, batches, device, features_of)


def frozen_reading(objective: Objective, batch: Batch, attention: ProbeAttention, layers: tuple[int, ...]) -> Reading:
    """How a frozen trunk reads a batch: the objective's way, but with the probe's attention and its layers.

    Padding stands last in every order, so it is hidden in the same places in raster and in reading order.
    """
    valid_BN = batch.images.valid_BN if batch.images.is_padded else None
    seen = Attention(causal=attention == "causal", valid_BN=valid_BN)
    return attrs.evolve(objective.probe_reading(batch), attention=seen, layers=layers)


def _averaged(features: Features, layers: tuple[int, ...], chosen: tuple[int, ...]) -> Features:
    """``features``, that hold the outputs of ``layers``, with the average of the ``chosen`` ones as tokens."""
    if not chosen:
        return features._replace(tokens_BND=features.tokens_BND.float(), layers=())
    # One sum after the other: a stack of all layers would be copied once and read twice.
    total_BND = torch.zeros_like(features.layers[0], dtype=torch.float32)
    for layer in chosen:
        total_BND += features.layers[layers.index(layer)]
    return features._replace(tokens_BND=total_BND.div_(len(chosen)), layers=())


def _read_as(kind: FeatureKind, features: Features, reading: Reading) -> Tensor:
    """What ``kind`` names: tokens in raster order (NaN on padding), one vector, or tokens beside patches."""
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
    """``[B, D]``, or ``[B, 2 * D]`` of class token and mean; the mean is without padding."""
    if pooling == "class":
        return _extra(features)[:, 0]
    is_whole = bool(features.valid_BN.all())
    mean_BD = features.tokens_BND.mean(1) if is_whole else _mean_over_valid(features.tokens_BND, features.valid_BN)
    return mean_BD if pooling == "mean" else torch.cat([_extra(features)[:, 0], mean_BD], dim=1)


def _extra(features: Features) -> Tensor:
    if features.extra_BRD is None:
        raise InvalidValue("probe", [("trunk", "it has no tokens beside patches, and a probe reads them")])
    return features.extra_BRD.float()


def _mean_over_valid(tokens_BND: Tensor, valid_BN: Tensor) -> Tensor:
    kept_BND = torch.where(valid_BN[..., None], tokens_BND, 0.0)
    return kept_BND.sum(1) / valid_BN.sum(1, keepdim=True)
