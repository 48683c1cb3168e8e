"""Features of augmented training images, which are computed anew in every pass over them.

Nothing is stored: each piece of features is computed, given to the probe, and released. Each pass costs a forward pass
of the trunk per image, so a probe of 100 epochs costs about as much as 100 passes of extraction.

Lower-case n is the number of training images, k that of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import torch
from torch import Generator, Tensor

from aimcore.contracts.augmentations import Augmentation
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue, UnreadableSample
from aimcore.contracts.labels import require_classes
from aimcore.contracts.probes import FeatureStream, FittedProbe, Probe
from aimcore.contracts.results import LabelledFeatures
from aimcore.evaluation.feature_sources import FeatureSource
from aimcore.evaluation.feature_tables import FeatureKind, Rows, Table
from aimcore.evaluation.probe_images import ProbeImages, chosen_numbers
from aimcore.evaluation.shared_batches import in_step


@attrs.frozen(eq=False)
class LiveFeatures:
    """Computes one kind of features of training images, whenever they are read."""

    images: ProbeImages
    source: FeatureSource
    kind: FeatureKind
    batch_size: int

    def rows(self, numbers: Tensor, augmentation: Augmentation | None = None, epoch: int = 0) -> Iterator[Rows]:
        """Yield the features of the training images ``numbers``, in pieces of one batch of every process.

        Every process must read all pieces: each computes a share of them, and gets those of all processes.
        """
        if augmentation is None:
            return self._rows(self.images.batches(self.images.train, self.batch_size, numbers))
        return self._rows(self.images.augmented(augmentation, numbers, self.batch_size, epoch))

    def _rows(self, batches: Iterable[Batch]) -> Iterator[Rows]:
        for batch, counts in in_step(batches):
            require_classes(batch, self.images.num_classes)
            if batch.labels_B is None:
                raise InvalidValue("probe", [("data", "a probe needs labels, and these images have none")])
            features = self.source.of(batch, self.kind).float().cpu()
            own = Rows(features, batch.labels_B.cpu(), batch.sample_numbers_B.cpu())
            yield (own if counts else own.at(slice(0))).over_ranks()


class LiveTable(Table):
    """Training images whose features are computed when they are read: augmented to fit a probe, else as they are."""

    def __init__(self, live: LiveFeatures, augmentation: Augmentation, most: int | None) -> None:
        """Read the labels; images whose label cannot be read are left out."""
        self._live, self._augmentation = live, augmentation
        opened = live.images.train
        chosen = chosen_numbers(len(opened), most)
        numbers = range(len(opened)) if chosen is None else chosen.tolist()
        labelled = [(number, label) for number in numbers if (label := _label(live.images, number)) is not None]
        self.numbers, self.labels = torch.tensor(labelled, dtype=torch.int64).reshape(-1, 2).T
        self.num_classes = live.images.num_classes

    def fit(self, probe: Probe, train: Tensor, held_out: Tensor, seed: int) -> FittedProbe:
        """Fit with the probe's ``fit_stream``: training images are augmented in every pass, held-out ones never."""
        augmented = LiveStream(self._live, self.numbers[train], self.labels[train], self._augmentation)
        return probe.fit_stream(augmented, LiveStream(self._live, self.numbers[held_out], self.labels[held_out]), seed)

    def places(self, positions: Tensor | None = None) -> Iterator[tuple[Tensor, LabelledFeatures]]:
        """Yield the samples at ``positions``, not augmented; images that cannot be read are left out."""
        numbers_n = self.numbers if positions is None else self.numbers[positions]
        if not len(numbers_n):
            return
        order_n = numbers_n.argsort()
        for rows in self._live.rows(numbers_n):
            place_k = order_n[torch.searchsorted(numbers_n[order_n], rows.numbers)]
            yield place_k, LabelledFeatures(rows.features, rows.labels, self.num_classes)


class LiveStream(FeatureStream):
    """A stream of features that are computed while they are read."""

    def __init__(
        self, live: LiveFeatures, numbers: Tensor, labels: Tensor, augmentation: Augmentation | None = None
    ) -> None:
        self.labels, self.num_classes = labels, live.images.num_classes
        self._live, self._numbers, self._augmentation = live, numbers, augmentation
        self._epoch = 0
        self.shape = self._shape()

    def _shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's features, which only the features of an image tell."""
        for rows in self._live.rows(self._numbers[: self._live.batch_size]):
            return tuple(rows.features.shape[1:])
        raise InvalidValue("probe", [("data", "there is no image to take features of")])

    def pieces(self, generator: Generator | None = None) -> Iterator[LabelledFeatures]:
        """Yield every readable sample once, a batch at a time; every call augments them in another way."""
        order_n = torch.arange(len(self._numbers))
        if generator is not None:
            order_n = torch.randperm(len(order_n), generator=generator)
        epoch, self._epoch = self._epoch, self._epoch + 1
        for rows in self._live.rows(self._numbers[order_n], self._augmentation, epoch):
            yield LabelledFeatures(rows.features, rows.labels, self.num_classes)


def _label(images: ProbeImages, number: int) -> int | None:
    try:
        return images.train.label(number)
    except UnreadableSample:
        return None
