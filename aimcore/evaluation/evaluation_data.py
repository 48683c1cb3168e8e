"""Data of evaluations: an experiment's images, read as in validation."""

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
    """Images with labels: ``data.probe_test`` if that is given, else ``data.validation``."""
    batch_size: int = 256
    """Images per process and forward pass."""
    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))
    """Device of the module and of batches."""
    unread: dict[str, set[int]] = attrs.field(factory=dict, init=False)
    """Images that this process could not read: their indices in the source, by the source's field of ``Data``."""

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        device: torch.device | None = None,
        opened: Callable[[Source], OpenSource] = methodcaller("open"),
    ) -> OpenEvaluationData:
        """Open the sources of ``experiment``.

        Args:
            experiment: the experiment to evaluate.
            device: the module's device; by default the CPU.
            opened: opens a source, or returns the opened source if it is open already.

        Raises:
            AimcoreError: a source cannot be opened.
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
        """The objective's tokenizer and context length; None if it reads no text."""
        return self.experiment.objective.text

    def source(self, split: Split) -> OpenSource:
        """Return the training or validation source."""
        return self.train if split == "train" else self.validation

    def origin(self, which: Split | Literal["labelled"]) -> Any:
        """Return the source of the images, as plain values for the protocol card."""
        data = self.experiment.data
        labelled = data.validation if data.probe_test is None else data.probe_test
        return plain({"train": data.train, "validation": data.validation, "labelled": labelled}[which])

    def described(self, split: Split, *, kind: str | None, group_by: str | None) -> dict[str, Any]:
        """Describe the images and captions that :meth:`captioned` selects from ``split``, for the protocol card."""
        return {
            "source": self.origin(split),
            "chosen": "by hash of the image's number" + ("" if group_by is None else f", one per {group_by!r}"),
            "captions": "of all kinds that are trained on" if kind is None else kind,
        }

    def batches(
        self, source: OpenSource, indices: Sequence[int] | npt.NDArray[np.int64] | None = None, *, text: bool = False
    ) -> Iterator[Batch]:
        """Yield this process's share of ``source``, or of its images ``indices``, with the evaluation transform.

        ``sample_numbers_B`` are indices into the source. Images that cannot be read are left out.

        Args:
            source: the source to read.
            indices: the images to read; all by default.
            text: also read each image's first caption (``batch.text``); images without a caption are left out.
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
        """Count unreadable images of ``source``, each once; :meth:`batches` and :meth:`captioned` call this.

        Sources that an evaluation opened itself are not part of the experiment's data, and are not counted.
        """
        fields = {"validation": self.validation, "probe_test": self.labelled, "train": self.train}
        field = next((field for field, opened in fields.items() if opened is source), None)
        if field is not None and (found := set(indices)):
            self.unread.setdefault(field, set()).update(found)

    def encode(self, texts: Sequence[str]) -> Text:
        """Encode ``texts`` with the objective's tokenizer."""
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
        """Apply ``rows_of`` to the images of :meth:`batches`, and gather its rows from all processes on the CPU.

        Returns:
            Indices into the source ``[n]``, ascending, and the rows ``[n, ...]``, one per image.

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
        """Return at most ``most`` images with captions, ascending; the same on every process.

        Images are selected in the order of their numbers' hashes, which is independent of seed and run.

        Args:
            source: the source to select from.
            most: the maximum number of images.
            kind: the kind of captions; None selects all kinds that the experiment trains on.
            group_by: a key of ``Sample.extras``: only the first image of each of its values is selected.
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
        """Yield why :meth:`captioned` would find nothing, judging by the first samples."""
        if not has_captions(source, self._weights(kind)):
            yield f"the first samples have no caption{'' if kind is None else f' of kind {kind!r}'}"
        if group_by is not None:
            known = list(_first_extras(source))
            if known and not any(group_by in keys for keys in known):
                yield f"the first samples have nothing called {group_by!r} (they have {sorted(set().union(*known))})"

    def _weights(self, kind: str | None) -> Mapping[str, float] | None:
        return self.experiment.data.caption_weights if kind is None else {kind: 1.0}


def _first_extras(source: OpenSource) -> Iterator[set[str]]:
    """Yield the keys of the extras of the first readable samples."""
    for index in range(min(len(source), 4)):
        try:
            yield set(source.read(index).extras)
        except UnreadableSample:
            continue


def shuffled(num: int) -> list[int]:
    """Return the numbers below ``num`` in the order of their hashes, which is independent of seed and run.

    Numbers that two different ``num`` have in common are in the same relative order.
    """
    order: list[int] = np.argsort(keyed_bits(0, "evaluated images", np.arange(num)), kind="stable").tolist()
    return order
