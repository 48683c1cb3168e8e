"""Evaluations: measurements of a trained objective other than its losses, and the data for them."""

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
"""The training or the validation source of an experiment."""


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
    """Images per process and forward pass."""

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
        """Return the recipe of a source, as plain values for the protocol card."""

    @abstractmethod
    def described(self, split: Split, *, kind: str | None, group_by: str | None) -> dict[str, Any]:
        """Describe the images and captions that :meth:`captioned` takes of ``split``, for the protocol card."""

    @abstractmethod
    def batches(
        self, source: OpenSource, indices: Sequence[int] | NDArray[np.int64] | None = None, *, text: bool = False
    ) -> Iterator[Batch]:
        """Yield this process's share of ``source``, or of its images ``indices``, with the evaluation transform.

        ``sample_numbers_B`` are indices in the source. Images that cannot be read are skipped.

        Args:
            source: the source to read.
            indices: the images to read; all of them by default.
            text: whether to read each image's first caption too (``batch.text``); images without one are skipped.
        """

    @abstractmethod
    def add_unread(self, source: OpenSource, indices: Iterable[int]) -> None:
        """Count images of ``source`` that could not be read; an image counts once.

        :meth:`batches` and :meth:`captioned` call this themselves. Sources that an evaluation opens itself are not part
        of the experiment's data and are not counted.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Text:
        """Encode ``texts`` with the objective's tokenizer and context length."""

    @abstractmethod
    def rows(
        self,
        rows_of: Callable[[Batch], Tensor],
        source: OpenSource,
        indices: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        text: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return one row of ``rows_of(batch)`` for each image of :meth:`batches`, of all processes, on the CPU.

        Returns:
            Indices in the source ``[n]``, ascending, and the rows ``[n, ...]``.

        Raises:
            TooFewBatches: there are several processes, and one has no image.
            InvalidValue: there is no image.
        """

    @abstractmethod
    def captioned(self, source: OpenSource, most: int, *, kind: str | None, group_by: str | None) -> list[Captioned]:
        """Return at most ``most`` images with captions, by ascending index; the same on every process.

        Images are chosen by a hash of their indices, independent of seed and run.

        Args:
            source: the source of the images.
            most: the largest number of images.
            kind: the kind of captions; None takes all kinds that the experiment trains on.
            group_by: a key of ``Sample.extras``; only the first image of each of its values is taken.
        """

    @abstractmethod
    def lacks(self, source: OpenSource, *, kind: str | None, group_by: str | None) -> Iterator[str]:
        """Yield why :meth:`captioned` would return no image, judging by the first samples."""


class Evaluation(Component, ABC):
    """A measurement of the trained objective: zero-shot classification, retrieval, captions."""

    __slots__ = ()
    role: ClassVar[str] = "evaluations"

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        """Return small objectives for the conformance kit, in addition to its stand-ins, which embed and caption.

        Override it if the evaluation needs another skill. The kit builds them on a small trunk with all capabilities,
        and gives them pictures of 4 x 4 patches with captions, with and without labels.
        """
        return ()

    @property
    def title(self) -> str:
        """Name of its scores before the slash, as in ``"retrieval/image_to_text@5"``.

        It must be unique among the evaluations of an experiment: override it if one can be used twice.
        """
        return self.name

    def problems_with(self, objective: Objective) -> Iterable[str]:
        """Yield why modules of ``objective`` cannot be measured (they embed nothing, for example)."""
        return ()

    def problems_with_data(self, data: EvaluationData) -> Iterable[str]:
        """Yield why it cannot be measured on this data (for example, no class names)."""
        return ()

    def protocol(self, data: EvaluationData) -> Mapping[str, Any]:
        """Return what a reader must know, in addition to the settings, to compare its scores; plain values.

        For example, the images, the number of candidates, and how they are compared.
        """
        return {}

    @abstractmethod
    def scores(self, module: ObjectiveModule, data: EvaluationData) -> Mapping[str, Score]:
        """Return the scores by name; each is a fraction of at least one example.

        ``module`` is in eval mode, and gradients are off. Every process calls this with its own share of
        ``data.batches(...)``, and all must return the same: ``data.rows(...)`` gathers the rows of all processes.
        """
