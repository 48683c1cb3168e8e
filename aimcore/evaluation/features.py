"""Features for probes: what a frozen trunk makes of labelled images, and the pixels it saw.

Shape suffixes: B batch, N patches, D width, L layers; lower-case n is the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from aimcore.errors import InvalidValue
from aimcore.evaluation.modes import frozen
from aimcore.evaluation.ranks import gather_rows, in_step
from aimcore.experiment import Precision
from aimcore.modules import TrunkModule
from aimcore.roles import Objective
from aimcore.values import Attention, Batch, Features, Images, LabelledFeatures, Reading

Reads = Literal["pooled", "tokens"]
ProbeAttention = Literal["bidirectional", "causal"]


@attrs.frozen
class FeatureKind:
    """What a probe is fed.

    ``layers``: blocks whose raw outputs are averaged; empty stands for the trunk's own output, after its final norm.
    ``reads``: ``"tokens"`` ``[n, N, D]`` in raster order, or their mean ``[n, D]``, ``"pooled"``.
    """

    reads: Reads
    layers: tuple[int, ...]


@attrs.frozen(eq=False)
class Extracted:
    """Every kind of features asked for, of all processes' samples, sorted by sample number.

    ``features`` are float32 on the CPU; ``labels`` and ``numbers`` have one entry per sample.
    """

    features: Mapping[FeatureKind, Tensor]
    labels: Tensor
    numbers: Tensor
    num_classes: int

    def of(self, kind: FeatureKind, positions: Tensor | None = None) -> LabelledFeatures:
        """One kind of features with their labels: of all samples, or of those at ``positions``."""
        features, labels = self.features[kind], self.labels
        if positions is not None:
            features, labels = features[positions], labels[positions]
        return LabelledFeatures(features=features, labels=labels, num_classes=self.num_classes)


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
    return extract_all(
        trunk, batches, (kind,), objective=objective, attention=attention, num_classes=num_classes, precision=precision
    ).of(kind)


def extract_all(
    trunk: TrunkModule,
    batches: Iterable[Batch],
    kinds: Sequence[FeatureKind],
    *,
    objective: Objective,
    attention: ProbeAttention,
    num_classes: int,
    precision: Precision = "fp32",
) -> Extracted:
    """Read all images once with a frozen trunk, and give every kind of features of them.

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
        InvalidValue: a batch has no labels, there is no batch, or tokens of differing grids are asked for.
    """
    layers = tuple(sorted({layer for kind in kinds for layer in kind.layers}))
    table = _Table(kinds, num_classes)
    with frozen(trunk, precision) as device:
        for given, counts in in_step(batches, device):
            batch = given.to(device)
            features = trunk(batch.images, probe_reading(objective, batch.images, attention, layers))
            if counts:
                table.add(batch, [_of_kind(features, layers, kind) for kind in kinds])
        return table.over_ranks(device)


def raw_pixel_features(
    batches: Iterable[Batch], reads: Sequence[Reads], *, num_classes: int, device: torch.device | None = None
) -> Extracted:
    """The images themselves as features: what a probe scores without any trunk.

    ``"pooled"`` is the flattened normalised image, channel by channel (C, H, W); ``"tokens"`` its patches. Both are
    kinds without layers.

    Args:
        batches: this process's share of the labelled images.
        reads: which of the two.
        num_classes: number of classes of the labels.
        device: where processes exchange rows, if not on the CPU.

    Raises:
        InvalidValue: as :func:`extract_all`.
    """
    kinds = [FeatureKind(reads=each, layers=()) for each in dict.fromkeys(reads)]
    table, where = _Table(kinds, num_classes), device or torch.device("cpu")
    for batch, counts in in_step(batches, where):
        if counts:
            table.add(batch, [_pixels(batch.images, kind.reads) for kind in kinds])
    return table.over_ranks(where)


def probe_reading(objective: Objective, images: Images, attention: ProbeAttention, layers: tuple[int, ...]) -> Reading:
    """How a frozen trunk reads images: the objective's way, but with the probe's attention and its layers.

    Padding stands last in every order, so it is hidden in the same places in raster and in reading order.
    """
    valid_BN = images.valid_BN if images.is_padded else None
    seen = Attention(causal=attention == "causal", valid_BN=valid_BN)
    return attrs.evolve(objective.reading(images), attention=seen, layers=layers)


def _pixels(images: Images, reads: Reads) -> Tensor:
    if not images.is_uniform:
        raise InvalidValue("probe", [("data", "raw pixels are features only where all images have one size")])
    return images.pixels_BCHW.flatten(1) if reads == "pooled" else images.patches_BNF


def _of_kind(features: Features, layers: tuple[int, ...], kind: FeatureKind) -> Tensor:
    """One kind of features of a batch, from features that hold the outputs of ``layers``."""
    if kind.layers:
        chosen = [features.layers[layers.index(layer)].float() for layer in kind.layers]
        tokens_BND = torch.stack(chosen).mean(0)
    else:
        tokens_BND = features.tokens_BND.float()
    raster = features._replace(tokens_BND=tokens_BND, layers=()).raster()
    if kind.reads == "pooled":
        return _mean_over_valid(raster.tokens_BND, raster.valid_BN)
    if not bool(raster.valid_BN.all()):
        raise InvalidValue("probe", [("reads", "a probe of tokens needs images of one size; use a pooled one")])
    return raster.tokens_BND


def _mean_over_valid(tokens_BND: Tensor, valid_BN: Tensor) -> Tensor:
    kept_BND = torch.where(valid_BN[..., None], tokens_BND, 0.0)
    return kept_BND.sum(1) / valid_BN.sum(1, keepdim=True)


class _Table:
    """Features, labels and sample numbers as they come in."""

    def __init__(self, kinds: Sequence[FeatureKind], num_classes: int) -> None:
        self.features: dict[FeatureKind, list[Tensor]] = {kind: [] for kind in kinds}
        self.num_classes = num_classes
        self.labels: list[Tensor] = []
        self.numbers: list[Tensor] = []

    def add(self, batch: Batch, features: Sequence[Tensor]) -> None:
        if batch.labels_B is None:
            raise InvalidValue("probe", [("data", "a probe needs labels, and these images have none")])
        for kept, new in zip(self.features.values(), features, strict=True):
            kept.append(new.float().cpu())
        self.labels.append(batch.labels_B.cpu())
        self.numbers.append(batch.sample_numbers_B.cpu())

    def over_ranks(self, device: torch.device) -> Extracted:
        """Everything of all processes, sorted by sample number: the same for any split into batches."""
        if not self.labels:
            raise InvalidValue("probe", [("data", "there is no image to take features of")])
        numbers = gather_rows(torch.cat(self.numbers), device)
        order = numbers.argsort(stable=True)
        features = {kind: gather_rows(torch.cat(rows), device)[order] for kind, rows in self.features.items()}
        labels = gather_rows(torch.cat(self.labels), device)[order]
        return Extracted(features=features, labels=labels, numbers=numbers[order], num_classes=self.num_classes)
