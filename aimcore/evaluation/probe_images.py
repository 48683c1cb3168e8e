"""The labelled images that probes train and are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import methodcaller
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts.augmentations import Augmentation
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue, Problem, UnreadableSample
from aimcore.contracts.labels import label_problems
from aimcore.contracts.randomness import keyed_bits
from aimcore.contracts.sources import OpenSource, Source
from aimcore.data import evaluation_batches
from aimcore.engine.distributed import rank_and_world_size
from aimcore.evaluation.few_labels import lacking
from aimcore.evaluation.probe_sizes import ProbeSize
from aimcore.experiment import Experiment

_LEAST_IMAGES = 3


@attrs.frozen(eq=False)
class ProbeImages:
    """An experiment's sources for probes, opened and checked."""

    experiment: Experiment
    train: OpenSource
    test: OpenSource
    size: ProbeSize

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.train.class_names)

    def augmented(self, augmentation: Augmentation, indices: Tensor, batch_size: int, epoch: int) -> Iterator[Batch]:
        """Yield this process's share of the training images ``indices``, in their order, augmented for ``epoch``."""
        rank, world_size = rank_and_world_size()
        data: Any = self.size.data(self.experiment.data)
        return evaluation_batches(
            attrs.evolve(data, augmentation=augmentation),
            self.train,
            patch_size=self.experiment.trunk.patch_size,
            views=(),
            batch_size=batch_size,
            seed=self.experiment.seed,
            rank=rank,
            world_size=world_size,
            indices=indices.numpy(),
            epoch=epoch,
        )

    def batches(self, source: OpenSource, batch_size: int, only: Tensor | None = None) -> Iterator[Batch]:
        """Yield this process's share of ``source``, or of its images ``only``, with the evaluation transform."""
        rank, world_size = rank_and_world_size()
        return evaluation_batches(
            self.size.data(self.experiment.data),
            source,
            patch_size=self.experiment.trunk.patch_size,
            views=(),
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            indices=None if only is None else only.numpy(),
            native_area=self.size.native_area,
        )

    def at(self, size: ProbeSize) -> ProbeImages:
        """Return the same images at another size."""
        return attrs.evolve(self, size=size)


def chosen_numbers(num_images: int, most: int | None) -> Tensor | None:
    """Return the numbers of at most ``most`` images of a source, ascending; None means all.

    The images with the smallest hashes of their numbers are selected, independent of seed and run. A smaller ``most``
    selects a subset.
    """
    if most is None or most >= num_images:
        return None
    hashes = keyed_bits(0, "probe images", np.arange(num_images))
    return torch.from_numpy(np.sort(np.argsort(hashes, kind="stable")[:most]))


def probe_sources(experiment: Experiment) -> tuple[Source, Source]:
    """Return the probes' training source and test source.

    They are ``data.probe_train`` and ``data.probe_test``, or by default ``data.train`` and ``data.validation``.
    """
    data = experiment.data
    return data.probe_train or data.train, data.probe_test or data.validation


def open_probe_images(
    experiment: Experiment, opened: Callable[[Source], OpenSource] = methodcaller("open")
) -> ProbeImages:
    """Open the sources of the probes, at the experiment's image size, and check that probes can use them.

    Raises:
        InvalidValue: labels or class names are missing; the test source has other classes than the training source; or
            no class has two training images, and a probe holds some out.
        AimcoreError: a source cannot be opened.
    """
    train_source, test_source = probe_sources(experiment)
    own = ProbeSize(experiment.data.image_size)
    images = ProbeImages(experiment, opened(train_source), opened(test_source), own)
    data = experiment.data
    train_path = "data.train" if data.probe_train is None else "data.probe_train"
    test_path = "data.validation" if data.probe_test is None else "data.probe_test"
    problems = list(_unlabelled(train_path, train_source, images.train))
    problems += _unlabelled(test_path, test_source, images.test)
    if not problems and tuple(images.train.class_names) != tuple(images.test.class_names):
        problems.append(Problem(test_path, _other_classes(train_path, images)))
    if not problems:
        problems += _nothing_to_hold_out(experiment, train_path, images.train)
        problems += _too_few_labels(experiment, train_path, images.train)
    if problems:
        raise InvalidValue(f"Experiment {experiment.name!r}", problems)
    return images


def _unlabelled(path: str, source: Source, images: OpenSource) -> Iterable[Problem]:
    hint = "give data.probe_train and data.probe_test labelled sources, or set probes to none"
    if not images.class_names:
        yield Problem(path, f"probes need classes, and source {source.name!r} names none: {hint}")
    elif _first_label(images) is None:
        yield Problem(path, f"probes need labels, and the images of source {source.name!r} have none: {hint}")
    else:
        found = label_problems(images, len(images.class_names), all_labelled=True)
        yield from (Problem(path, text) for text in found)


def _nothing_to_hold_out(experiment: Experiment, path: str, images: OpenSource) -> Iterator[Problem]:
    """Yield probes that choose their settings on held-out images if no image can be held out."""
    most = {probe.name: probe.max_train_images for probe in experiment.probes if probe.holds_out}
    for name, number in most.items():
        chosen = chosen_numbers(len(images), number)
        numbers = range(len(images)) if chosen is None else chosen.tolist()
        lacking = _lacking(images, numbers)
        if lacking:
            among = "" if chosen is None else f" (among the {number} that max_train_images takes)"
            yield Problem(
                path,
                f"probe {name!r} chooses its settings on held-out training images, and {lacking}{among}: "
                "give data.probe_train more images, or use a probe that chooses nothing",
            )


def _too_few_labels(experiment: Experiment, path: str, images: OpenSource) -> Iterator[Problem]:
    """Yield probes for which a class has fewer images than the experiment asks for; only labels in memory are read."""
    known, most = images.known_labels(), max(experiment.probe_labels_per_class, default=0)
    if known is None or not most:
        return
    for probe in experiment.probes:
        chosen = chosen_numbers(len(images), probe.max_train_images)
        labels, counts = np.unique(known if chosen is None else known[chosen.numpy()], return_counts=True)
        place = int(counts.argmin())
        if counts[place] < most:
            label = int(labels[place])
            text = lacking(f"class {label} ({images.class_names[label]})", int(counts[place]), most)
            yield Problem(path, f"probe {probe.name!r} is to be fitted with few labels: probe_labels_per_class {text}")


def _lacking(images: OpenSource, numbers: Sequence[int]) -> str:
    if len(numbers) < _LEAST_IMAGES:
        return f"of {len(numbers)} images none can be held out, as two are trained on"
    return "" if _has_equal_labels(images, numbers) else "no class has two images"


def _has_equal_labels(images: OpenSource, numbers: Iterable[int]) -> bool:
    """Whether two of the images have the same label. Few are read: among more images than classes, two have."""
    seen: set[int] = set()
    for number in numbers:
        try:
            label = images.label(number)
        except UnreadableSample:
            continue
        if label in seen:
            return True
        if label is not None:
            seen.add(label)
    return False


def _first_label(images: OpenSource) -> int | None:
    """Return the label of the first readable image, or None if no image is readable."""
    for index in range(len(images)):
        try:
            return images.label(index)
        except UnreadableSample:
            continue
    return None


def _other_classes(train_path: str, images: ProbeImages) -> str:
    train, test = images.train.class_names, images.test.class_names
    return (
        f"must have the classes of {train_path}, in the same order: {len(test)} classes ({_some(test)}) "
        f"against {len(train)} ({_some(train)})"
    )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
