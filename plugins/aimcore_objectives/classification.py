"""Supervised classification, for fine-tuning."""

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
    Images,
    InvalidValue,
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
from aimcore_objectives.attention_pool import AttentionPool
from aimcore_objectives.mixup import LEAST_ALPHA, MOST_ALPHA, mixed
from aimcore_objectives.steps import at_least_float32, orders_of

CLASSIFY = "classify"
"""The skill of objectives whose modules have a method ``class_scores(batch)``: ``[B, K]``, the likeliest highest."""


class MissingLabels(AimcoreError):
    """A batch for classification has no labels."""


@component("classification", paper="arXiv:2401.08541, section 5.5 and Table 8: what is fine-tuned for")
class Classification(Objective):
    """Predict the class of an image from its pooled tokens with a linear layer, to fine-tune or train a trunk.

    The tokens are those after the trunk's final norm. The paper fine-tunes with the settings of its attentive probe
    (Tables 8 and 11): ``pooling="attentive"`` and ``mixup=0.8``, with a trunk ``lora`` or, in full, without it. Other
    poolings are this project's choice. In addition to the cross-entropy, the fraction of misclassified images is
    reported as the loss ``error`` with weight 0; of a mixed image, the class with the larger share is right.
    """

    num_classes: int
    pooling: Literal["mean", "last", "attentive"] = "mean"
    """The mean of all tokens; the last token in reading order, which sees all others in causal attention; or the
    attention of one learned query (arXiv:2401.08541, equation 4), before a linear layer without bias."""
    num_pool_heads: int = 8
    """Heads of attentive pooling; they must divide the trunk's width."""
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    ordering: Ordering | None = None
    """The order in which the trunk reads patches, for causal attention; None is raster order."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread over all classes in training; validation does not smooth."""
    mixup: float = 0.0
    """Both parameters of the beta distribution from which the share of each image in its mixture is drawn in training
    (arXiv:1710.09412); 0 mixes nothing. Images of neighbouring sample numbers are mixed."""

    @property
    def skills(self) -> frozenset[str]:
        """Its module has ``class_scores``."""
        return frozenset({CLASSIFY})

    @property
    def requires(self) -> frozenset[Capability]:
        """Causal attention and an order, if they are configured."""
        causal: frozenset[Capability] = frozenset({"causal"}) if self.attention == "causal" else frozenset()
        order: frozenset[Capability] = frozenset({"order"}) if self.ordering is not None else frozenset()
        return causal | order

    @property
    def is_separable(self) -> bool:
        """False with mixup, which mixes images of one batch."""
        return self.mixup == 0

    @property
    def any_grid(self) -> bool:
        """Tokens of any grid can be pooled, unless attention is causal or an order is set."""
        return self.ordering is None and self.attention == "bidirectional"

    def problems(self) -> Iterable[Problem]:
        """Yield problems of the number of classes and of label smoothing."""
        yield from at_least("num_classes", self.num_classes, 2, limits.CLASSES)
        yield from at_least("num_pool_heads", self.num_pool_heads, 1, limits.HEADS)
        yield from within("label_smoothing", self.label_smoothing, 0, 0.99)
        yield from within("mixup", self.mixup, 0, MOST_ALPHA)
        if 0 < self.mixup < LEAST_ALPHA:
            yield Problem("mixup", f"must be 0 or at least {LEAST_ALPHA}, got {self.mixup}")

    def problems_with_data(self, source: OpenSource) -> Iterable[str]:
        """Yield why it cannot train on ``source``: no labels, or labels beyond ``num_classes``."""
        if _first_label(source) is None:
            yield "classification needs labels, and its images have none: give images in one folder per class"
        elif source.class_names and len(source.class_names) != self.num_classes:
            number = len(source.class_names)
            yield f"its images are of {number} classes: set objective.num_classes to that, it is {self.num_classes}"
        else:
            yield from label_problems(source, self.num_classes, all_labelled=True)

    def build(self, trunk: TrunkModule) -> ClassificationModule:
        """Build the trunk with a linear layer."""
        return ClassificationModule(self, trunk)

    def probe_reading(self, batch: Batch) -> Reading:
        """Return this objective's order."""
        return Reading(order_BN=self.orders(batch, training=False))

    def orders(self, batch: Batch, *, training: bool) -> Tensor | None:
        """Return the order ``[B, N]`` of each image; None is raster order."""
        return None if self.ordering is None else orders_of(self.ordering, batch, training=training)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Return objectives with both attentions and both poolings."""
        return (
            cls(num_classes=3),
            cls(num_classes=3, pooling="last", attention="causal", label_smoothing=0.1),
            cls(num_classes=3, pooling="attentive", num_pool_heads=2, mixup=0.8),
        )


class ClassificationModule(ObjectiveModule):
    """The module of :class:`Classification`."""

    def __init__(self, config: Classification, trunk: TrunkModule) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        attentive = config.pooling == "attentive"
        if attentive and trunk.width % config.num_pool_heads:
            problem = f"must divide the trunk's width ({trunk.width}), got {config.num_pool_heads}"
            raise InvalidValue("Classification", [("num_pool_heads", problem)])
        self.pool = AttentionPool(trunk.width, config.num_pool_heads) if attentive else None
        self.classifier = nn.Linear(trunk.width, config.num_classes, bias=not attentive)
        init_linears(self.classifier)

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """Return the number of images, for both losses.

        Raises:
            MissingLabels: there are no labels.
            InvalidLabel: a label is not below ``num_classes``.
        """
        return dict.fromkeys(("classification", "error"), len(self._labels(batch)))

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the cross-entropy, and the number of misclassified images.

        Raises:
            MissingLabels: there are no labels.
            InvalidLabel: a label is not below ``num_classes``.
        """
        labels_B, config = self._labels(batch), self.config
        mix = mixed(batch, config.mixup) if config.mixup and self.training else None
        logits_BK = self._logits(batch, batch.images if mix is None else mix.images)
        smoothing = config.label_smoothing if self.training else 0.0
        loss_B = nn.functional.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)
        if mix is not None:
            # The cross-entropy with a mixture of two labels is the mixture of their cross-entropies.
            others_B = labels_B[mix.partner_B]
            other_B = nn.functional.cross_entropy(logits_BK, others_B, reduction="none", label_smoothing=smoothing)
            loss_B = torch.lerp(other_B, loss_B, mix.share_B.to(loss_B.dtype))
            labels_B = torch.where(mix.share_B >= 0.5, labels_B, others_B)
        num_wrong = (logits_BK.detach().argmax(-1) != labels_B).sum()
        num_targets = torch.tensor(len(labels_B), device=loss_B.device)
        error = Loss(num_wrong.to(loss_B.dtype), num_targets, 0.0)
        return {"classification": Loss(loss_B.sum(), num_targets), "error": error}

    def class_scores(self, batch: Batch) -> Tensor:
        """Return the logits ``[B, K]``; the batch needs no labels."""
        return self._logits(batch, batch.images)

    def _logits(self, batch: Batch, images: Images) -> Tensor:
        return at_least_float32(self.classifier(self._pooled(self.trunk(images, self._reading(batch)))))

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
        # Padding is last in every order.
        valid_BN = images.valid_BN if images.is_padded else None
        attention = Attention(causal=self.config.attention == "causal", valid_BN=valid_BN)
        return Reading(attention=attention, order_BN=self.config.orders(batch, training=self.training))

    def _pooled(self, features: Features) -> Tensor:
        """``[B, D]`` from each image's own tokens."""
        if self.pool is not None:
            pooled_BD: Tensor = self.pool(features)
            return pooled_BD
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
