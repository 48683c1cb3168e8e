"""Classification by hand: what is pooled, what is summed, what is refused."""

from __future__ import annotations

import math

import attrs
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor

from aimcore import (
    BIDIRECTIONAL,
    CAUSAL,
    Attention,
    Batch,
    Images,
    InvalidValue,
    OpenSource,
    PatchGrid,
    Reading,
    Sample,
    UnreadableSample,
)
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.images import images_of
from aimcore.testing.fixtures import part_of
from aimcore_objectives import Classification
from aimcore_objectives.classification import ClassificationModule, MissingLabels
from aimcore_objectives.mixup import beta_shares, mixed
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


@pytest.mark.parametrize("objective", Classification.examples(), ids=["mean", "last", "attentive"])
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


def test_attentive_pooling_is_equation_4() -> None:
    module = module_of(Classification(num_classes=3, pooling="attentive", num_pool_heads=4))
    pool, tokens_BND = module.pool, tokens_of(module, BIDIRECTIONAL)
    assert pool is not None
    pooled_BD = torch.empty(4, 16)
    for image, tokens_ND in enumerate(tokens_BND):
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            scores_N = (tokens_ND @ pool.key.weight.T)[:, part] @ pool.query[part] / 2  # the square root of 4
            pooled_BD[image, part] = scores_N.softmax(0) @ (tokens_ND @ pool.value.weight.T)[:, part]
    assert module.classifier.bias is None
    logits_BK = pooled_BD @ module.classifier.weight.T
    expected = torch.nn.functional.cross_entropy(logits_BK, LABELS, reduction="sum")
    torch.testing.assert_close(module(batch_of())["classification"].sum, expected)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"num_pool_heads: must divide the trunk's width \(16\), got 3"):
        module_of(Classification(num_classes=3, pooling="attentive", num_pool_heads=3))


MIXING = Classification(num_classes=3, mixup=0.8)


def test_mixup_mixes_neighbours_and_their_labels() -> None:
    module, batch = module_of(MIXING), batch_of()
    mix = mixed(batch, 0.8)
    assert mix.partner_B.tolist() == [1, 0, 3, 2]
    shares = beta_shares(0, np.arange(4), 0.8)
    patches_BNF = batch.images.patches_BNF
    for image, partner in enumerate([1, 0, 3, 2]):
        by_hand = shares[image] * patches_BNF[image] + (1 - shares[image]) * patches_BNF[partner]
        torch.testing.assert_close(mix.images.patches_BNF[image], by_hand.float())
    targets_BK = torch.zeros(4, 3)
    for image, partner in enumerate([1, 0, 3, 2]):
        targets_BK[image, LABELS[image]] += shares[image]
        targets_BK[image, LABELS[partner]] += 1 - shares[image]
    logits_BK = logits_of(module, module.trunk(mix.images, Reading()).tokens_BND.mean(1))
    expected = torch.nn.functional.cross_entropy(logits_BK, targets_BK, reduction="sum")
    losses = module(batch)
    torch.testing.assert_close(losses["classification"].sum, expected)
    wrong = logits_BK.argmax(-1) != targets_BK.argmax(-1)
    assert float(losses["error"].sum) == int(wrong.sum())


def test_validation_mixes_nothing() -> None:
    module = module_of(MIXING).eval()
    plain = module_of(Classification(num_classes=3)).eval()
    torch.testing.assert_close(module(batch_of())["classification"].sum, plain(batch_of())["classification"].sum)


def test_pairs_and_shares_belong_to_sample_numbers() -> None:
    whole = batch_of()
    halves = [part_of(whole, 0, 2), part_of(whole, 2, 4)]
    together = mixed(whole, 0.8).images.patches_BNF
    assert torch.equal(together, torch.cat([mixed(half, 0.8).images.patches_BNF for half in halves]))
    odd = mixed(part_of(whole, 1, 4), 0.8)  # the neighbour of sample 1 is missing
    assert odd.share_B[0] == 1
    assert torch.equal(odd.images.patches_BNF[1:], together[2:])
    assert not torch.equal(together, mixed(attrs.evolve(whole, seed=1), 0.8).images.patches_BNF)


def test_images_of_different_grids_are_not_mixed() -> None:
    images = Images(torch.rand(2, 4, 1), (PatchGrid(2, 2), PatchGrid(1, 4)), 1)
    assert mixed(Batch(images, torch.arange(2)), 0.8).share_B.tolist() == [1, 1]


@pytest.mark.parametrize("alpha", [0.2, 0.8, 2.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = beta_shares(3, np.arange(4000), alpha)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_cannot_be_accumulated() -> None:
    assert Classification(num_classes=3).is_separable
    assert not MIXING.is_separable
    with pytest.raises(InvalidValue, match=r"mixup: must be"):
        Classification(num_classes=3, mixup=0.01)
