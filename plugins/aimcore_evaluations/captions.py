"""Generated captions, compared with reference captions.

Shape suffixes: B batch, T text tokens; lower-case n is the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from aimcore import (
    AimcoreError,
    Batch,
    Evaluation,
    Objective,
    ObjectiveModule,
    Problem,
    Score,
    TextTokenizer,
    at_least,
    component,
)
from aimcore.contracts import limits
from aimcore.contracts.evaluations import Captioned, EvaluationData, Split
from aimcore.evaluation import generate, learns_to_stop, share


@component("captions")
class Captions(Evaluation):
    """The share of images whose greedy caption equals a reference, letter by letter (``exact``).

    Any reference of the image counts, as the tokenizer decodes it: cleaned, in lower case, and cut.
    """

    split: Split = "train"
    num_images: int = 64
    """Largest number of images, which are chosen by hash."""
    kind: str | None = None
    """The kind of reference captions; by default all kinds that are trained on."""
    group_by: str | None = None
    """A key of the samples' extras. One image per value is used, for example per ``"concept"``."""

    @property
    def title(self) -> str:
        """The name of the data that it is measured on."""
        return f"{self.name}/{self.split}"

    def problems(self) -> Iterable[Problem]:
        """Yield a number of images below 1."""
        return at_least("num_images", self.num_images, 1, limits.IMAGES)

    def problems_with(self, objective: Objective) -> Iterator[str]:
        """Yield a problem if the objective writes no captions, or does not learn where they end."""
        if "caption" not in objective.skills or objective.text is None:
            yield f"objective {objective.name!r} writes no captions"
            return
        try:
            stops = learns_to_stop(*objective.text)
        except AimcoreError:
            return  # its vocabulary is missing, which is reported for the tokenizer
        if not stops:
            yield (
                f"tokenizer {objective.text[0].name!r} does not supervise the end token, so captions never end and "
                "never equal a reference: set supervise_end"
            )

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield a problem if captions, or the requested groups, are missing."""
        for text in data.lacks(data.source(self.split), kind=self.kind, group_by=self.group_by):
            yield f"captions need captioned images in data.{self.split} to be compared with: {text}"

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """Describe the images, and how their captions are written."""
        described = data.described(self.split, kind=self.kind, group_by=self.group_by)
        return {**described, "written": "greedily", "counted": "equal to one of the image's captions"}

    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """Measure the share of captions that equal a reference."""
        assert data.tokenizer is not None
        tokenizer, context_length = data.tokenizer
        source = data.source(self.split)
        chosen = data.captioned(source, self.num_images, kind=self.kind, group_by=self.group_by)

        def ids_of(batch: Batch) -> Tensor:
            keys = batch.sample_numbers_B.tolist()
            captions = generate(module, batch.images, tokenizer, context_length, keys=keys)
            written = [caption.ids for caption in captions]
            padded = [[*ids, *[tokenizer.padding_id] * (context_length - len(ids))] for ids in written]
            return torch.tensor(padded)

        _, ids_nT = data.rows(ids_of, source, [one.index for one in chosen])
        right = [
            tokenizer.decode(ids) in _references(one, tokenizer, context_length)
            for ids, one in zip(ids_nT.tolist(), chosen, strict=True)
        ]
        return {"exact": share(torch.tensor(right))}

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """On training images and on validation images."""
        return cls(), cls(split="validation", num_images=3)


def _references(image: Captioned, tokenizer: TextTokenizer, context_length: int) -> set[str]:
    ids_BT = tokenizer.encode(image.captions, context_length).ids_BT
    return {tokenizer.decode(ids) for ids in ids_BT.tolist()}
