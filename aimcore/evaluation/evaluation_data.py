"""What evaluations measure on: an experiment's images, read as in validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.contracts.batches import Batch, Text
from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.evaluations import Captioned, EvaluationData, Split
from aimcore.contracts.objectives import Objective
from aimcore.contracts.randomness import keyed_bits
from aimcore.contracts.sources import OpenSource, Source
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.data import evaluation_batches
from aimcore.data.captions import has_captions, wanted_captions
from aimcore.engine.distributed import gather_rows, rank_and_world_size
from aimcore.evaluation.feature_writers import no_images
from aimcore.evaluation.shared_batches import in_step
from aimcore.experiment import Experiment
from aimcore.recipe.writing import plain


@attrs.frozen(eq=False)
class OpenEvaluationData(EvaluationData):
    """An experiment with its sources open."""

    experiment: Experiment
    train: OpenSource
    validation: OpenSource
    labelled: OpenSource
    """Whose classes are told: ``data.probe_test`` where that is given, else ``data.validation``."""
    batch_size: int = 256
    """Images per process and forward."""
    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))
    """Where the module is, and batches go."""
    unread: dict[str, set[int]] = attrs.field(factory=dict, init=False)
    """What this process could not read: places in the source, by its field of the experiment's data."""

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        device: torch.device | None = None,
        opened: Callable[[Source], OpenSource] = methodcaller("open"),
    ) -> OpenEvaluationData:
        """Open the sources of ``experiment``.

        Args:
            experiment: whose.
            device: where the module is; by default the CPU.
            opened: opens a source, or knows that it is open.

        Raises:
            AimcoreError: a source is not there.
        """
        data = experiment.data
        validation = opened(data.validation)
        labelled = validation if data.probe_test is None else opened(data.probe_test)
        return cls(experiment, opened(data.train), validation, labelled, device=device or torch.device("cpu"))

    @property
    def objective(self) -> Objective:
        """The experiment's objective."""
        return self.experiment.objective

    @property
    def tokenizer(self) -> tuple[TextTokenizer, int] | None:
        """The objective's tokenizer and context length; None where it reads no text."""
        return self.experiment.objective.text

    def source(self, split: Split) -> OpenSource:
        """What is trained on, or validated with."""
        return self.train if split == "train" else self.validation

    def origin(self, which: Split | Literal["labelled"]) -> Any:
        """Where its images are from, as plain values for the protocol card."""
        data = self.experiment.data
        labelled = data.validation if data.probe_test is None else data.probe_test
        return plain({"train": data.train, "validation": data.validation, "labelled": labelled}[which])

    def described(self, split: Split, *, kind: str | None, group_by: str | None) -> dict[str, Any]:
        """Which images :meth:`captioned` takes of ``split``, and with which captions, for the protocol card."""
        return {
            "source": self.origin(split),
            "chosen": "by hash of the image's number" + ("" if group_by is None else f", one per {group_by!r}"),
            "captions": "of all kinds that are trained on" if kind is None else kind,
        }

    def batches(
        self, source: OpenSource, indices: Sequence[int] | npt.NDArray[np.int64] | None = None, *, text: bool = False
    ) -> Iterator[Batch]:
        """This process's share of ``source``, or of its images ``indices``, by the evaluation transform.

        ``sample_numbers_B`` are places in the source. Images that cannot be read are left out.

        Args:
            source: what is read.
            indices: the images wanted; all by default.
            text: read each image's first caption too (``batch.text``); an image without is left out.
        """
        rank, world_size = rank_and_world_size()
        batches = evaluation_batches(
            self.experiment.data,
            source,
            patch_size=self.experiment.trunk.patch_size,
            views=(),
            text=self.tokenizer if text else None,
            batch_size=self.batch_size,
            seed=self.experiment.seed,
            rank=rank,
            world_size=world_size,
            indices=indices,
        )
        wanted = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
        return self._counted(batches, source, wanted[rank::world_size].tolist())

    def _counted(self, batches: Iterable[Batch], source: OpenSource, wanted: Iterable[int]) -> Iterator[Batch]:
        missing = set(wanted)
        for batch in batches:
            missing.difference_update(batch.sample_numbers_B.tolist())
            yield batch.to(self.device)
        self.add_unread(source, missing)

    def add_unread(self, source: OpenSource, indices: Iterable[int]) -> None:
        """Count images of ``source`` that could not be read, each once; :meth:`batches` and :meth:`captioned` do so.

        Sources that an evaluation opened itself are no part of the experiment's data, and are not counted.
        """
        fields = {"validation": self.validation, "probe_test": self.labelled, "train": self.train}
        field = next((field for field, opened in fields.items() if opened is source), None)
        if field is not None and (found := set(indices)):
            self.unread.setdefault(field, set()).update(found)

    def encode(self, texts: Sequence[str]) -> Text:
        """Ids of ``texts``, as the objective reads them."""
        assert self.tokenizer is not None, "an objective without text was asked to read some"
        tokenizer, context_length = self.tokenizer
        return tokenizer.encode(texts, context_length)

    def rows(
        self,
        rows_of: Callable[[Batch], Tensor],
        source: OpenSource,
        indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
        *,
        text: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """What ``rows_of`` gives for the images of :meth:`batches`, a row each: of all processes, on the CPU.

        Returns:
            Places in the source ``[n]``, ascending, and the rows ``[n, ...]``.

        Raises:
            TooFewBatches: with several processes, some have no image.
            InvalidValue: there is no image.
        """
        numbers, found = [], []
        for batch, counts in in_step(self.batches(source, indices, text=text)):
            if counts:
                numbers.append(batch.sample_numbers_B)
                found.append(rows_of(batch).cpu())
        if not found:
            raise no_images()
        numbers_n, rows_n = (gather_rows(torch.cat(parts)) for parts in (numbers, found))
        order_n = numbers_n.argsort()
        return numbers_n[order_n], rows_n[order_n]

    def captioned(self, source: OpenSource, most: int, *, kind: str | None, group_by: str | None) -> list[Captioned]:
        """At most ``most`` images with captions, ascending; the same on every process.

        Images are taken in the order of their numbers' hashes, which depends on neither seed nor run.

        Args:
            source: where they are taken from.
            most: how many, if there are as many.
            kind: the kind of captions; None takes all kinds that the experiment trains on.
            group_by: a key of ``Sample.extras``: only the first image of each value of it is taken.
        """
        weights = self._weights(kind)
        found: list[Captioned] = []
        groups: set[object] = set()
        for index in shuffled(len(source)):
            if len(found) == most:
                break
            try:
                sample = source.read(index)
                captions = tuple(text for texts in wanted_captions(sample, weights).values() for text in texts)
            except UnreadableSample:
                self.add_unread(source, [index])
                continue
            group = index if group_by is None else sample.extras.get(group_by)
            if captions and group is not None and group not in groups:
                groups.add(group)
                found.append(Captioned(index, captions))
        return sorted(found, key=lambda one: one.index)

    def lacks(self, source: OpenSource, *, kind: str | None, group_by: str | None) -> Iterator[str]:
        """Yield why :meth:`captioned` would find nothing, as far as the first samples tell."""
        if not has_captions(source, self._weights(kind)):
            yield f"the first samples have no caption{'' if kind is None else f' of kind {kind!r}'}"
        if group_by is not None:
            known = list(_first_extras(source))
            if known and not any(group_by in keys for keys in known):
                yield f"the first samples have nothing called {group_by!r} (they have {sorted(set().union(*known))})"

    def _weights(self, kind: str | None) -> Mapping[str, float] | None:
        return self.experiment.data.caption_weights if kind is None else {kind: 1.0}


def _first_extras(source: OpenSource) -> Iterator[set[str]]:
    """What the first samples that can be read have besides image, label and captions."""
    for index in range(min(len(source), 4)):
        try:
            yield set(source.read(index).extras)
        except UnreadableSample:
            continue


def shuffled(num: int) -> list[int]:
    """Numbers below ``num`` in an order that neither seed nor run has a part in: by their hashes.

    Of the first so many, those below another ``num`` stand in the same order there.
    """
    order: list[int] = np.argsort(keyed_bits(0, "evaluated images", np.arange(num)), kind="stable").tolist()
    return order
