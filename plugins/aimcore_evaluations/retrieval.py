"""Retrieval: find the caption of each image among those of all images, and the image of each caption.

Shape suffixes: lower-case n is the number of images, which equals that of captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from aimcore import Evaluation, Objective, ObjectiveModule, Problem, Score, at_least, component
from aimcore.contracts import limits
from aimcore.contracts.evaluations import Captioned, EvaluationData, Split
from aimcore.evaluation import chance_of_hits, hits, share, similarities
from aimcore_evaluations.prompts import cannot_compare, compared_by


@component("retrieval", paper="arXiv:2103.00020, section 3.1")
class Retrieval(Evaluation):
    """Recall at k in both directions, ``image_to_text@k`` and ``text_to_image@k``; each image has its first caption.

    Objectives that embed rank by cosine, objectives that write captions by log(caption | image). If several images have
    the same caption, or captions that are equal after they were cut, each of them is a hit. Chance accounts for that: a
    query with h hits among n has one among the first k of a random order with probability 1 - C(n - h, k) / C(n, k).
    """

    split: Split = "validation"
    max_images: int = 1000
    """Largest number of images, which are chosen by hash."""
    kind: str | None = None
    """The kind of captions; by default the first kind that is trained on."""
    group_by: str | None = None
    """A key of the samples' extras. One image per value is used, for example per ``"concept"``."""
    subtract_mean: bool = False
    """Whether to measure ``image_to_text_centred@k`` too: it first subtracts each caption's mean log-likelihood over
    the images, an estimate of its likelihood for any image; otherwise short and frequent captions suit every image. The
    ranks of images for a caption do not change. Has no effect for embeddings. This option is our own."""
    recall_at: tuple[int, ...] = (1, 5, 10)

    @property
    def title(self) -> str:
        """The data it is measured on, if these are not the validation images."""
        return self.name if self.split == "validation" else f"{self.name}/{self.split}"

    def problems(self) -> Iterable[Problem]:
        """Yield ranks out of bounds."""
        yield from at_least("max_images", self.max_images, 2, limits.IMAGES)
        if not self.recall_at or min(self.recall_at) < 1:
            yield Problem("recall_at", f"must be ranks of at least 1, got {self.recall_at}")
        elif max(self.recall_at) > limits.IMAGES:
            yield Problem("recall_at", f"must be ranks of at most {limits.IMAGES}, got {self.recall_at}")

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield a problem if the objective cannot compare images and texts."""
        return cannot_compare(objective)

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield a problem if captions, or the requested groups, are missing."""
        for text in data.lacks(data.source(self.split), kind=self.kind, group_by=self.group_by):
            yield f"retrieval needs captioned images in data.{self.split}: {text}"

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """Describe the images and captions, and how they are compared."""
        described = data.described(self.split, kind=self.kind, group_by=self.group_by)
        candidates = "all of these images, and the first caption of each"
        return {**described, "candidates": candidates, "compared_by": compared_by(data.objective)}

    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """Measure recall in both directions."""
        source = data.source(self.split)
        chosen = data.captioned(source, self.max_images, kind=self.kind, group_by=self.group_by)
        texts = [one.captions[0] for one in chosen]
        _, likeness_nn = similarities(module, data, source, texts, [one.index for one in chosen])
        same_nn = _same(data, chosen)
        ranked = {"image_to_text": likeness_nn, "text_to_image": likeness_nn.T}
        if self.subtract_mean and "embed" not in data.objective.skills:
            ranked["image_to_text_centred"] = likeness_nn - likeness_nn.mean(0)
        return {
            f"{direction}@{k}": share(hits(found_nn, same_nn, k), chance=chance_of_hits(same_nn, k))
            for direction, found_nn in ranked.items()
            for k in self.recall_at
        }

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The defaults, and one image per group on training images."""
        return cls(), cls(split="train", max_images=5, subtract_mean=True, recall_at=(1, 2))


def _same(data: EvaluationData, chosen: Sequence[Captioned]) -> Tensor:
    """``[n, n]``: whether two captions are equal as the module reads them."""
    rows = [tuple(row) for row in data.encode([one.captions[0] for one in chosen]).ids_BT.tolist()]
    numbers = {row: number for number, row in enumerate(rows)}
    which_n = torch.tensor([numbers[row] for row in rows])
    return which_n[:, None] == which_n
