"""Zero-shot classification: the class whose name fits the image best.

Shape suffixes: C classes, P prompts per class, E embedding width; lower-case n is the number of images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import Evaluation, Objective, ObjectiveModule, Problem, Score, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.errors import InvalidLabel, UnreadableSample
from aimcore.contracts.evaluations import EvaluationData
from aimcore.contracts.labels import label_problems
from aimcore.evaluation import compared, embedded_texts, hits, share, shuffled, similarities
from aimcore_evaluations.prompts import PROMPTS, cannot_compare, compared_by

_WORDNET_ID = re.compile(r"n\d{8}")
_WHERE = "data.probe_test (or data.validation, where that is not given)"


@component("zero_shot", paper="arXiv:2103.00020, section 3.1; arXiv:2411.14402, Table 5")
class ZeroShot(Evaluation):
    """Classify the probes' test images by class names: ``top1``, and ``top5`` if there are more than five classes.

    With an objective that embeds, a class is the normalised mean of its prompts' embeddings (as in CLIP). With one that
    writes captions, its score is the mean over prompts of the log-likelihood of the prompt given the image. This
    favours short names, unless it is divided by the number of tokens (an option of this project).

    Classes whose prompts have equal ids count as one: two "crane" among ImageNet's names, or "Cardigan" and
    "cardigan" if text is read in lower case. The protocol lists them.
    """

    templates: tuple[str, ...] = ("{}",)
    """Prompts with ``{}`` for the class's name; ``PROMPTS`` has some for photographs."""
    per_token: bool = False
    """Whether a prompt's log-likelihood is divided by its number of scored tokens. Has no effect for embeddings."""
    max_images: int | None = None
    """Largest number of images, which are chosen by hash; None uses all."""

    def problems(self) -> Iterable[Problem]:
        """Yield templates without one place for the name."""
        wrong = [template for template in self.templates if template.count("{}") != 1]
        if wrong or not self.templates:
            yield Problem("templates", f"must be texts with one {{}} each, for the class's name, got {self.templates}")
        if self.max_images is not None:
            yield from at_least("max_images", self.max_images, 1, limits.IMAGES)

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield a problem if the objective cannot compare images and texts."""
        return cannot_compare(objective)

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield a problem if labels or class names are missing, or if class names are no words."""
        names = data.labelled.class_names
        ids = [name for name in names if _WORDNET_ID.fullmatch(name)]
        if len(names) < 2:
            yield f"zero-shot classification needs at least two class names, and {_WHERE} names none, or one"
        elif 2 * len(ids) > len(names):
            yield (
                f"zero-shot classification needs names that are words, and {len(ids)} of {len(names)} class names of "
                f"{_WHERE} are WordNet ids, such as {ids[0]!r}: give the classes names (image_folder: by `names`)"
            )
        elif not self._labels(data, 1):
            yield f"zero-shot classification needs labels, and the images of {_WHERE} have none"
        else:
            found = label_problems(data.labelled, len(names), all_labelled=False)
            yield from (f"of the images of {_WHERE}, {text}" for text in found)
            if data.tokenizer is not None and len(self._classes(data)) < 2:
                yield f"zero-shot classification needs names that differ, and the objective reads all of {_WHERE} alike"

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """Describe the images and classes, and how they are compared."""
        classes, names = self._classes(data), data.labelled.class_names
        alike = [[names[label] for label in labels] for labels in classes if len(labels) > 1]
        return {
            "source": data.origin("labelled"),
            "chosen": "all" if self.max_images is None else "by hash of the image's number",
            "num_classes": len(classes),
            "compared_by": compared_by(data.objective),
        } | ({"counted_as_one_class": alike} if alike else {})

    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """Measure the share of images whose class is ranked first, or among the first five.

        Raises:
            InvalidLabel: a label has no class name.
        """
        classes = self._classes(data)
        class_of = {label: number for number, labels in enumerate(classes) for label in labels}
        labels = self._labels(data, self.max_images)
        _require_names(labels, class_of)
        names = [data.labelled.class_names[alike[0]] for alike in classes]
        numbers_n, scores_nC = self._class_scores(module, data, names, sorted(labels))
        num_classes = scores_nC.shape[1]
        right_n = torch.tensor([class_of[labels[number]] for number in numbers_n.tolist()])
        right_nC = functional.one_hot(right_n, num_classes).bool()
        return {
            f"top{k}": share(hits(scores_nC, right_nC, k), chance=k / num_classes)
            for k in (1, 5)
            if k == 1 or num_classes > k
        }

    def _prompts(self, names: Sequence[str]) -> list[str]:
        """Return all prompts of the first name, then those of the next."""
        return [template.format(name) for name in names for template in self.templates]

    def _classes(self, data: EvaluationData) -> list[list[int]]:
        """Return labels by class: labels whose prompts have equal ids share a class."""
        names = data.labelled.class_names
        rows = data.encode(self._prompts(names)).ids_BT.reshape(len(names), -1).tolist()
        classes: dict[tuple[int, ...], list[int]] = {}
        for label, row in enumerate(rows):
            classes.setdefault(tuple(row), []).append(label)
        return list(classes.values())

    def _class_scores(
        self, module: ObjectiveModule, data: EvaluationData, names: Sequence[str], indices: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return indices in the source ``[n]``, and scores ``[n, C]``."""
        source, prompts = data.labelled, self._prompts(names)
        shape = len(names), len(self.templates)
        if "embed" in data.objective.skills:
            embedded_CE = embedded_texts(module, data, prompts).reshape(*shape, -1).mean(1)
            return compared(module, data, source, functional.normalize(embedded_CE, dim=-1), indices)
        numbers_n, likelihoods = similarities(module, data, source, prompts, indices)
        if self.per_token:
            likelihoods = likelihoods / data.encode(prompts).valid_BT.sum(1)
        return numbers_n, likelihoods.reshape(-1, *shape).mean(2)

    def _labels(self, data: EvaluationData, most: int | None) -> dict[int, int]:
        """Return the labels of at most ``most`` labelled images by their indices in the source."""
        source = data.labelled
        labels: dict[int, int] = {}
        for index in shuffled(len(source)):
            if len(labels) == most:
                break
            try:
                label = source.label(index)
            except UnreadableSample:
                data.add_unread(source, [index])
                continue
            if label is not None:
                labels[index] = label
        return labels

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The plain name, and many prompts."""
        return cls(), cls(templates=PROMPTS[:3], per_token=True, max_images=7)


def _require_names(labels: Mapping[int, int], class_of: Mapping[int, int]) -> None:
    wrong = [(index, label) for index, label in sorted(labels.items()) if label not in class_of]
    if wrong:
        index, label = wrong[0]
        raise InvalidLabel(
            f"{len(wrong)} of {len(labels)} labels of {_WHERE} are beyond its {len(class_of)} class names, such as "
            f"{label!r} of the image at index {index}"
        )
