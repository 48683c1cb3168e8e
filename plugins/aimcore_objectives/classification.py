"""Supervised classification: what a trunk is fine-tuned with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from aimcore import (
    AimcoreError,
    Attention,
    Batch,
    Capability,
    Features,
    Loss,
    Objective,
    ObjectiveModule,
    OpenSource,
    Ordering,
    Problem,
    Reading,
    TrunkModule,
    UnreadableSample,
    at_least,
    component,
    within,
)
from aimcore.contracts import limits
from aimcore.contracts.labels import label_problems, require_classes
from aimcore.modeling.layers import init_linears
from aimcore_objectives.steps import at_least_float32, orders_of


class MissingLabels(AimcoreError):
    """Images that should be classified have no labels."""


@component("classification", paper="arXiv:2401.08541, section 5.5 and Table 8: what is fine-tuned for")
class Classification(Objective):
    """The class of an image from its pooled tokens, by a linear layer; to fine-tune a trunk, or to train one on labels.

    The tokens are those after the trunk's final norm. What reads them while the paper fine-tunes is not published: the
    mean and one linear layer are this project's choice. Beside the cross-entropy, the share of images classified
    wrongly is reported, as the loss ``error`` of weight 0.
    """

    num_classes: int
    pooling: Literal["mean", "last"] = "mean"
    """All tokens, or the last one in reading order, which has seen all others where attention is causal."""
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    ordering: Ordering | None = None
    """The order in which the trunk reads; None is raster. It matters where attention is causal."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in training; validation is without."""

    @property
    def requires(self) -> frozenset[Capability]:
        """Causal attention and an order, where they are asked for."""
        causal: frozenset[Capability] = frozenset({"causal"}) if self.attention == "causal" else frozenset()
        order: frozenset[Capability] = frozenset({"order"}) if self.ordering is not None else frozenset()
        return causal | order

    @property
    def any_grid(self) -> bool:
        """Pooled tokens may be of any grid; an order of patches, and who precedes whom, needs their own."""
        return self.ordering is None and self.attention == "bidirectional"

    def problems(self) -> Iterable[Problem]:
        """There is a choice between classes, and some of the target is left."""
        yield from at_least("num_classes", self.num_classes, 2, limits.CLASSES)
        yield from within("label_smoothing", self.label_smoothing, 0, 0.99)

    def problems_with_data(self, source: OpenSource) -> Iterable[str]:
        """Its images have labels, and no more classes than there are outputs."""
        if _first_label(source) is None:
            yield "classification needs labels, and its images have none: give images in one folder per class"
        elif source.class_names and len(source.class_names) != self.num_classes:
            number = len(source.class_names)
            yield f"its images are of {number} classes: set objective.num_classes to that, it is {self.num_classes}"
        else:
            yield from label_problems(source, self.num_classes, all_labelled=True)

    def build(self, trunk: TrunkModule) -> ClassificationModule:
        """The trunk with a linear layer."""
        return ClassificationModule(self, trunk)

    def probe_reading(self, batch: Batch) -> Reading:
        """Probes read in this objective's order."""
        return Reading(order_BN=self.orders(batch, training=False))

    def orders(self, batch: Batch, *, training: bool) -> Tensor | None:
        """``[B, N]``: the order of each image; None is raster."""
        return None if self.ordering is None else orders_of(self.ordering, batch, training=training)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Both ways to attend and to pool."""
        return cls(num_classes=3), cls(num_classes=3, pooling="last", attention="causal", label_smoothing=0.1)


class ClassificationModule(ObjectiveModule):
    """The module of :class:`Classification`."""

    def __init__(self, config: Classification, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.classifier = nn.Linear(trunk.width, config.num_classes)
        init_linears(self.classifier)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Number of images, for both losses.

        Raises:
            MissingLabels: there are no labels.
            InvalidLabel: a label is not below ``num_classes``.
        """
        return dict.fromkeys(("classification", "error"), len(self._labels(batch)))

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy, and how many images are classified wrongly.

        Raises:
            MissingLabels: there are no labels.
            InvalidLabel: a label is not below ``num_classes``.
        """
        labels_B, config = self._labels(batch), self.config
        logits_BK = at_least_float32(self.classifier(self._pooled(self.trunk(batch.images, self._reading(batch)))))
        smoothing = config.label_smoothing if self.training else 0.0
        loss = nn.functional.cross_entropy(logits_BK, labels_B, reduction="sum", label_smoothing=smoothing)
        num_wrong = (logits_BK.detach().argmax(-1) != labels_B).sum()
        num_targets = torch.tensor(len(labels_B), device=loss.device)
        return {"classification": Loss(loss, num_targets), "error": Loss(num_wrong.to(loss.dtype), num_targets, 0.0)}

    def _labels(self, batch: Batch) -> Tensor:
        if batch.labels_B is None:
            raise MissingLabels(
                "classification needs a label for every image, and images of this batch have none: give labelled "
                "images as data.train and data.validation, e.g. a folder with one sub-folder per class"
            )
        require_classes(batch, self.config.num_classes)
        return batch.labels_B

    def _reading(self, batch: Batch) -> Reading:
        images = batch.images
        # Padding stands last in every order.
        valid_BN = images.valid_BN if images.is_padded else None
        attention = Attention(causal=self.config.attention == "causal", valid_BN=valid_BN)
        return Reading(attention=attention, order_BN=self.config.orders(batch, training=self.training))

    def _pooled(self, features: Features) -> Tensor:
        """``[B, D]``: the mean or the last of each image's own tokens."""
        tokens_BND, valid_BN = at_least_float32(features.tokens_BND), features.valid_BN
        if self.config.pooling == "last":
            last_B = valid_BN.sum(1) - 1
            return tokens_BND[torch.arange(len(last_B), device=last_B.device), last_B]
        share_BN = valid_BN.to(tokens_BND.dtype) / valid_BN.sum(1, keepdim=True)
        return (tokens_BND * share_BN[..., None]).sum(1)


def _first_label(source: OpenSource) -> int | None:
    """The label of the first image that can be read."""
    for index in range(len(source)):
        try:
            return source.label(index)
        except UnreadableSample:
            continue
    return None
