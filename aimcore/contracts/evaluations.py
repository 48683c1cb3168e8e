"""Evaluations: what a trained objective can do besides its losses, and the data that it is measured on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.component import Component
from aimcore.contracts.objectives import Objective, ObjectiveModule
from aimcore.contracts.results import Score
from aimcore.contracts.sources import OpenSource
from aimcore.contracts.tokenizers import TextTokenizer

Split = Literal["train", "validation"]
"""What an experiment trains on, or what it validates with."""


@attrs.frozen
class Captioned:
    """An image by its index in the source, with its captions."""

    index: int
    captions: tuple[str, ...]
    """Of the requested kinds, in the source's order."""


class EvaluationData(ABC):
    """The images of an experiment, read as in validation. The core implements it; an evaluation reads it."""

    train: OpenSource
    validation: OpenSource
    labelled: OpenSource
    """The source whose classes evaluations predict: ``data.probe_test`` if it is given, else ``data.validation``."""
    batch_size: int
    """Images per process and forward."""

    @property
    @abstractmethod
    def objective(self) -> Objective:
        """The objective that was trained."""

    @property
    @abstractmethod
    def tokenizer(self) -> tuple[TextTokenizer, int] | None:
        """The objective's tokenizer and context length; None if it reads no text."""

    @abstractmethod
    def source(self, split: Split) -> OpenSource:
        """The source of ``split``."""

    @abstractmethod
    def origin(self, which: Split | Literal["labelled"]) -> Any:
        """The recipe of a source, as plain values for the protocol card."""

    @abstractmethod
    def described(self, split: Split, *, kind: str | None, group_by: str | None) -> dict[str, Any]:
        """Which images :meth:`captioned` takes of ``split``, and with which captions, for the protocol card."""

    @abstractmethod
    def batches(
        self, source: OpenSource, indices: Sequence[int] | NDArray[np.int64] | None = None, *, text: bool = False
    ) -> Iterator[Batch]:
        """Yield this process's share of ``source``, or of its images ``indices``, by the evaluation transform.

        ``sample_numbers_B`` are indices in the source. Images that cannot be read are left out.

        Args:
            source: the source to read.
            indices: the images to read; all of them by default.
            text: whether to read each image's first caption too (``batch.text``); images without one are left out.
        """

    @abstractmethod
    def add_unread(self, source: OpenSource, indices: Iterable[int]) -> None:
        """Count images of ``source`` that could not be read, each once.

        :meth:`batches` and :meth:`captioned` do so themselves. Sources that an evaluation opened itself are not part
        of the experiment's data, and are not counted.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Text:
        """Ids of ``texts``, as the objective reads them."""

    @abstractmethod
    def rows(
        self,
        rows_of: Callable[[Batch], Tensor],
        source: OpenSource,
        indices: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        text: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One row of ``rows_of(batch)`` for each image of :meth:`batches`: of all processes, on the CPU.

        Returns:
            Indices in the source ``[n]``, ascending, and the rows ``[n, ...]``.

        Raises:
            TooFewBatches: with several processes, some have no image.
            InvalidValue: there is no image.
        """

    @abstractmethod
    def captioned(self, source: OpenSource, most: int, *, kind: str | None, group_by: str | None) -> list[Captioned]:
        """At most ``most`` images with captions, by ascending index; the same on every process.

        Images are taken in the order of their indices' hashes, which depends on neither seed nor run.

        Args:
            source: where they are taken from.
            most: the largest number of images.
            kind: the kind of captions; None takes all kinds that the experiment trains on.
            group_by: a key of ``Sample.extras``: only the first image of each value of it is taken.
        """

    @abstractmethod
    def lacks(self, source: OpenSource, *, kind: str | None, group_by: str | None) -> Iterator[str]:
        """Yield why :meth:`captioned` would find nothing, as far as the first samples tell."""


class Evaluation(Component, ABC):
    """A measurement of the trained objective: zero-shot classification, retrieval, captions."""

    __slots__ = ()
    role: ClassVar[str] = "evaluations"

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        """Small objectives that the conformance kit checks it on, besides its own stand-ins, which embed and caption.

        Override it where it measures what only some objectives do. They are built on a small trunk that can do all
        that trunks can, and given pictures of 4 x 4 patches with captions, with and without labels.
        """
        return ()

    @property
    def title(self) -> str:
        """What its scores are called in front of the slash, as in ``"retrieval/image_to_text@5"``.

        No two evaluations of an experiment may have the same: override it where one may be used twice.
        """
        return self.name

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield why modules of ``objective`` cannot be measured (they embed nothing, for example)."""
        return ()

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield why it cannot be measured on this data (no class names, say)."""
        return ()

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """What a reader must know to compare its scores with others', besides the settings; plain values.

        Such as which images and how many candidates there are, and how they are compared.
        """
        return {}

    @abstractmethod
    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """What was measured, by name; shares of things that were judged, at least one.

        ``module`` is in evaluation mode and without gradients already. Every process calls this, each has its own share
        of ``data.batches(...)``, and all must give the same: ``data.rows(...)`` brings those of all together.
        """
