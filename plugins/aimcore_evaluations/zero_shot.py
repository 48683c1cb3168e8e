"""Zero-shot classification: the class whose name goes best with the image.

Shape suffixes: C classes, P prompts per class, E embedding width; lower-case n is the number of images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from aimcore import Evaluation, Objective, ObjectiveModule, OpenSource, Problem, Score, at_least, component, limits
from aimcore.errors import UnreadableSample
from aimcore.evaluation import Material, compared, embedded_texts, hits, share, shuffled, similarities
from aimcore_evaluations.prompts import PROMPTS, cannot_compare, compared_by

_WORDNET_ID = re.compile(r"n\d{8}")
_WHERE = "data.probe_test (or data.validation, where that is not given)"


@component("zero_shot", paper="arXiv:2103.00020, section 3.1; arXiv:2411.14402, Table 5")
class ZeroShot(Evaluation):
    """Classes of the probes' test images told by their names alone: ``top1``, and ``top5`` of more than five classes.

    With an objective that embeds, a class is the normalised mean of its prompts' embeddings (as CLIP's). With one that
    writes captions, it is the mean over prompts of the log-likelihood of the prompt given the image; names of several
    lengths then favour the short ones, unless it is divided by the number of tokens (an option of this project's).
    """

    templates: tuple[str, ...] = ("{}",)
    """Prompts, with ``{}`` where the class's name stands; ``PROMPTS`` are some for photographs."""
    per_token: bool = False
    """Whether a prompt's log-likelihood is divided by its number of scored tokens; embeddings have no use for it."""
    max_images: int | None = None
    """At most so many images, chosen by hash; all by default."""

    def problems(self) -> Iterable[Problem]:
        """Each template has a place for the name."""
        wrong = [template for template in self.templates if template.count("{}") != 1]
        if wrong or not self.templates:
            yield Problem("templates", f"must be texts with one {{}} each, for the class's name, got {self.templates}")
        if self.max_images is not None:
            yield from at_least("max_images", self.max_images, 1, limits.IMAGES)

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Images and texts must be comparable."""
        return cannot_compare(objective)

    def problems_with_data(self, material: Material) -> Iterable[str]:
        """There must be classes to choose from, with names that are words, and labels."""
        names = material.labelled.class_names
        ids = [name for name in names if _WORDNET_ID.fullmatch(name)]
        if len(names) < 2:
            yield f"zero-shot classification needs at least two class names, and {_WHERE} names none, or one"
        elif 2 * len(ids) > len(names):
            yield (
                f"zero-shot classification needs names that are words, and {len(ids)} of {len(names)} class names of "
                f"{_WHERE} are WordNet ids, such as {ids[0]!r}: give the classes names (image_folder: by `names`)"
            )
        elif not self._labels(material.labelled, 1):
            yield f"zero-shot classification needs labels, and the images of {_WHERE} have none"

    def protocol(self, material: Material) -> Mapping[str, Any]:
        """Which images and classes, and how they are compared."""
        return {
            "source": material.origin("labelled"),
            "chosen": "all" if self.max_images is None else "by hash of the image's number",
            "num_classes": len(material.labelled.class_names),
            "compared_by": compared_by(material.experiment.objective),
        }

    def scores(self, module: ObjectiveModule, material: Material) -> Mapping[str, Score]:
        """The shares of images whose class is the best, or among the five best."""
        labels = self._labels(material.labelled, self.max_images)
        numbers_n, scores_nC = self._class_scores(module, material, sorted(labels))
        num_classes = scores_nC.shape[1]
        right_nC = functional.one_hot(
            torch.tensor([labels[number] for number in numbers_n.tolist()]), num_classes
        ).bool()
        return {
            f"top{k}": share(hits(scores_nC, right_nC, k), chance=k / num_classes)
            for k in (1, 5)
            if k == 1 or num_classes > k
        }

    def _class_scores(self, module: ObjectiveModule, material: Material, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Places in the source ``[n]``, and scores ``[n, C]``."""
        source = material.labelled
        prompts = [template.format(name) for name in source.class_names for template in self.templates]
        shape = len(source.class_names), len(self.templates)
        if "embed" in material.experiment.objective.can:
            embedded_CE = embedded_texts(module, material, prompts).reshape(*shape, -1).mean(1)
            return compared(module, material, source, functional.normalize(embedded_CE, dim=-1), indices)
        numbers_n, likelihoods = similarities(module, material, source, prompts, indices)
        if self.per_token:
            likelihoods = likelihoods / material.encode(prompts).valid_BT.sum(1)
        return numbers_n, likelihoods.reshape(-1, *shape).mean(2)

    def _labels(self, source: OpenSource, most: int | None) -> dict[int, int]:
        """The labels of at most ``most`` images that have one, by their places."""
        labels: dict[int, int] = {}
        for index in shuffled(len(source)):
            if len(labels) == most:
                break
            try:
                label = source.label(index)
            except UnreadableSample:
                continue
            if label is not None:
                labels[index] = label
        return labels

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The plain name; many prompts."""
        return cls(), cls(templates=PROMPTS[:3], per_token=True, max_images=7)
