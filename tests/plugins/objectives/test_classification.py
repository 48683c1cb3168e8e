"""Classification by hand: what is pooled, what is summed, what is refused."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from aimcore import (
    BIDIRECTIONAL,
    CAUSAL,
    Attention,
    Batch,
    Images,
    InvalidValue,
    OpenSource,
    Reading,
    Sample,
    UnreadableSample,
)
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.images import images_of
from aimcore_objectives import Classification
from aimcore_objectives.classification import ClassificationModule, MissingLabels
from aimcore_orderings import Spiral
from aimcore_trunks import ViT

LABELS = torch.tensor([2, 0, 1, 1])


def module_of(objective: Classification) -> ClassificationModule:
    torch.manual_seed(0)
    return objective.build(ViT(width=16, depth=2, num_heads=2, patch_size=2).build())


def batch_of(labels_B: Tensor | None = LABELS) -> Batch:
    pixels = torch.rand(4, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return Batch(images=images_of(pixels, 2), sample_numbers_B=torch.arange(4), labels_B=labels_B)


def logits_of(module: ClassificationModule, pooled_BD: Tensor) -> Tensor:
    weight, bias = module.classifier.weight, module.classifier.bias
    return pooled_BD @ weight.T + bias


def tokens_of(module: ClassificationModule, attention: Attention, order_BN: Tensor | None = None) -> Tensor:
    return module.trunk(batch_of().images, Reading(attention=attention, order_BN=order_BN)).tokens_BND


def test_the_loss_is_the_cross_entropy_of_the_mean_token() -> None:
    module = module_of(Classification(num_classes=3))
    loss = module(batch_of())["classification"]
    log_probabilities = logits_of(module, tokens_of(module, BIDIRECTIONAL).mean(1)).log_softmax(-1)
    torch.testing.assert_close(loss.sum, -log_probabilities[torch.arange(4), LABELS].sum())
    assert (int(loss.num_targets), loss.weight) == (4, 1.0)


def test_the_last_token_of_a_causal_trunk_stands_at_the_end_of_the_order() -> None:
    objective = Classification(num_classes=3, pooling="last", attention="causal", ordering=Spiral())
    module = module_of(objective)
    order_BN = Spiral().permutation(batch_of().images.grid).expand(4, -1)
    logits_BK = logits_of(module, tokens_of(module, CAUSAL, order_BN)[:, -1])
    expected = torch.nn.functional.cross_entropy(logits_BK, LABELS, reduction="sum")
    torch.testing.assert_close(module(batch_of())["classification"].sum, expected)
    assert objective.requires == {"causal", "order"}


def test_the_error_counts_wrong_answers_and_teaches_nothing() -> None:
    module = module_of(Classification(num_classes=3))
    torch.nn.init.zeros_(module.classifier.weight)
    module.classifier.bias.data = torch.tensor([0.0, 5.0, 0.0])  # it always answers 1
    error = module(batch_of())["error"]
    assert (float(error.sum), int(error.num_targets), error.weight) == (2.0, 4, 0.0)
    assert not error.sum.requires_grad


def test_smoothing_is_for_training_alone() -> None:
    module = module_of(Classification(num_classes=3, label_smoothing=0.3))
    torch.nn.init.zeros_(module.classifier.weight)
    module.classifier.bias.data = torch.tensor([0.0, math.log(2), 0.0])  # probabilities 1/4, 1/2, 1/4
    hard = 2 * math.log(4) + 2 * math.log(2)
    soft = 4 * (2 * math.log(4) + math.log(2)) / 3
    assert float(module.eval()(batch_of())["classification"].sum.detach()) == pytest.approx(hard)
    assert float(module.train()(batch_of())["classification"].sum.detach()) == pytest.approx(0.7 * hard + 0.3 * soft)


@pytest.mark.parametrize("objective", Classification.examples(), ids=["mean", "last"])
def test_padding_is_not_pooled(objective: Classification) -> None:
    module = module_of(objective).eval()
    large, small = batch_of().images, images_of(torch.rand(1, 3, 4, 4), 2)
    padded = torch.cat([small.patches_BNF, torch.full((1, 8, 12), math.pi)], dim=1)
    mixed = Images(torch.cat([large.patches_BNF[:1], padded]), (large.grid, small.grid), 2)
    together = module(Batch(mixed, torch.arange(2), labels_B=LABELS[:2]))["classification"].sum
    first = Images(large.patches_BNF[:1], (large.grid,), 2)
    alone = [
        module(Batch(images, torch.arange(1), labels_B=label))["classification"].sum
        for images, label in ((first, LABELS[:1]), (small, LABELS[1:2]))
    ]
    torch.testing.assert_close(together, alone[0] + alone[1])


def test_images_without_labels_are_an_error_that_says_so() -> None:
    module = module_of(Classification(num_classes=3))
    with pytest.raises(MissingLabels, match=r"images of this batch have none: give labelled images as data\.train"):
        module.counts(batch_of(None))


class Few(OpenSource):
    def __init__(self, labels: list[int | None], class_names: tuple[str, ...] = ()) -> None:
        self.labels = labels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Sample:
        raise UnreadableSample(str(index), "never read here")

    def label(self, index: int) -> int | None:
        return self.labels[index]


def test_sources_without_labels_or_of_other_classes_are_refused() -> None:
    objective = Classification(num_classes=3)
    assert list(objective.problems_with_data(Few([None]))) == [
        "classification needs labels, and its images have none: give images in one folder per class"
    ]
    assert list(objective.problems_with_data(Few([0], ("cat", "dog")))) == [
        "its images are of 2 classes: set objective.num_classes to that, it is 3"
    ]
    assert list(objective.problems_with_data(Few([2, 1], ("cat", "dog", "cow")))) == []


class Known(Few):
    def known_labels(self) -> npt.NDArray[np.int64]:
        return np.array([-1 if label is None else label for label in self.labels])


def test_labels_beyond_the_classes_are_refused_before_training_where_they_are_known() -> None:
    objective = Classification(num_classes=3)
    assert list(objective.problems_with_data(Known([0, 3, 2], ("cat", "dog", "cow")))) == [
        "labels must lie from 0 to 2, and 1 do not: 3 at index 1"
    ]
    assert list(objective.problems_with_data(Known([0, None]))) == ["1 of 2 images have no label, the first at index 1"]


def test_labels_beyond_the_classes_are_named_when_they_are_met() -> None:
    module = module_of(Classification(num_classes=2))
    for use in (module.counts, module):
        with pytest.raises(InvalidLabel, match=r"labels must lie from 0 to 1, and 1 of 4 .* do not: 2 of sample 0"):
            use(batch_of())


def test_one_class_is_no_choice() -> None:
    with pytest.raises(InvalidValue, match="num_classes: must be at least 2, got 1"):
        Classification(num_classes=1)
