"""The accuracy of an objective that classifies: shares counted by hand, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from plugins.evaluations.material import Grey, KnownModule, measured, misfits, number_of
from torch import Tensor

from aimcore import Batch
from aimcore.contracts.errors import InvalidLabel
from aimcore.contracts.images import images_of
from aimcore.evaluation import wilson_interval
from aimcore.testing.small_parts import StandInTrunk
from aimcore_evaluations import Accuracy
from aimcore_objectives import Classification

FOUR = Grey(captions=("a",) * 4, labels=(0, 1, None, 0), classes=("cat", "dog"))


class KnownClasses(KnownModule):
    """Scores of classes by the number of the image."""

    def class_scores(self, batch: Batch) -> Tensor:
        return self.images[number_of(batch.images)]


def test_images_with_a_label_are_counted_and_ties_are_wrong() -> None:
    module = KnownClasses(images=[(1, 0), (0, 1), (0, 0), (0.5, 0.5)])
    scores = measured(FOUR, Accuracy(), module, can="classify")
    assert list(scores) == ["accuracy/top1"]
    found = scores["accuracy/top1"]
    assert (found.value, found.num, found.chance, found.ci95) == (2 / 3, 3, 0.5, wilson_interval(2, 3))


def test_top5_is_given_of_more_than_five_classes() -> None:
    source = Grey(captions=("a",) * 2, labels=(0, 5), classes=tuple("abcdef"))
    scores = measured(source, Accuracy(), KnownClasses(images=[(2, 6, 5, 4, 3, 1)] * 2), can="classify")
    assert (scores["accuracy/top1"].value, scores["accuracy/top5"].value) == (0.0, 0.5)
    assert scores["accuracy/top5"].chance == pytest.approx(5 / 6)


def test_a_label_beyond_the_classes_is_an_error() -> None:
    source = Grey(captions=("a",), labels=(2,), classes=("a", "b", "c"))
    with pytest.raises(InvalidLabel, match="is 2, and the objective knows 2 classes"):
        measured(source, Accuracy(), KnownClasses(images=[(1, 0)]), can="classify")


def test_it_needs_an_objective_that_classifies_and_labels() -> None:
    assert misfits(FOUR, Accuracy(), can="classify") == []
    assert "needs the skill 'classify'" in misfits(FOUR, Accuracy(), can="embed")[0]
    assert "needs labels" in misfits(Grey(captions=("a",)), Accuracy(), can="classify")[0]


def test_scores_of_the_built_in_objective_are_the_logits_of_its_loss() -> None:
    """The cross-entropy of the scores is the loss, with mixup too: evaluation mixes nothing."""
    torch.manual_seed(0)
    module = Classification(num_classes=3, mixup=0.8).build(StandInTrunk().build()).eval()
    images = images_of(torch.rand(4, 3, 4, 4), StandInTrunk().patch_size)
    batch = Batch(images=images, sample_numbers_B=torch.arange(4), labels_B=torch.tensor([0, 1, 2, 1]))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(module.class_scores(batch), batch.labels_B, reduction="sum")
        assert torch.allclose(module(batch)["classification"].sum, expected)
