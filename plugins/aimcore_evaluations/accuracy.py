"""The accuracy of an objective that classifies, such as a fine-tuned trunk.

Shape suffixes: B batch, K classes; lower-case n is the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import Batch, Evaluation, Objective, ObjectiveModule, OpenSource, Score, component
from aimcore.contracts.errors import InvalidLabel, UnreadableSample
from aimcore.contracts.evaluations import EvaluationData
from aimcore.contracts.labels import label_problems
from aimcore.evaluation import hits, share
from aimcore_objectives import CLASSIFY, Classification

_WHERE = "data.probe_test (or data.validation, where that is not given)"


class Classifier(Protocol):
    """A module whose objective has the skill ``classify``."""

    def class_scores(self, batch: Batch) -> Tensor:
        """Return ``[B, K]`` scores of the classes, the likeliest highest."""


@component("accuracy", paper="arXiv:2401.08541, Table 8")
class Accuracy(Evaluation):
    """The share of the probes' test images that the objective itself classifies correctly: ``top1``, and ``top5``.

    It has the same test images as the probes, so that fine-tuned trunks are compared with frozen ones. ``top5`` is
    measured if there are more than five classes. Ties count as wrong.
    """

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield a problem if the objective does not classify."""
        if CLASSIFY not in objective.skills:
            yield f"accuracy needs the skill {CLASSIFY!r}, which objective {objective.name!r} does not have"

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield a problem if no image has a label, or labels are beyond the objective's classes."""
        if not _labels(data.labelled):
            yield f"accuracy needs labels, and the images of {_WHERE} have none"
        elif isinstance(data.objective, Classification):
            found = label_problems(data.labelled, data.objective.num_classes, all_labelled=False)
            yield from (f"of the images of {_WHERE}, {text}" for text in found)

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """Describe the images."""
        return {"source": data.origin("labelled"), "images": "all with a label"}

    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """Measure both shares.

        Raises:
            InvalidLabel: a label is of a class that the objective does not know.
        """
        labels, classifier = _labels(data.labelled), cast(Classifier, module)
        numbers_n, scores_nK = data.rows(classifier.class_scores, data.labelled, sorted(labels))
        num_classes = scores_nK.shape[1]
        right_n = torch.tensor([labels[number] for number in numbers_n.tolist()])
        if int(right_n.max()) >= num_classes:
            raise InvalidLabel(
                f"a label of {_WHERE} is {int(right_n.max())}, and the objective knows {num_classes} classes, from 0 on"
            )
        right_nK = functional.one_hot(right_n, num_classes).bool()
        return {
            f"top{k}": share(hits(scores_nK, right_nK, k), chance=k / num_classes)
            for k in (1, 5)
            if k == 1 or num_classes > k
        }

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        """Return an objective that classifies."""
        return (Classification(num_classes=5),)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The only setting."""
        return (cls(),)


def _labels(source: OpenSource) -> dict[int, int]:
    """Return the labels by index; images that cannot be read are left out here, and counted when they are read."""
    known = source.known_labels()
    if known is not None:
        return {index: int(label) for index, label in enumerate(known) if label >= 0}
    labels = {}
    for index in range(len(source)):
        try:
            label = source.label(index)
        except UnreadableSample:
            continue
        if label is not None:
            labels[index] = label
    return labels
