"""A batch from its number: read, crop, render, pack. Pure, so that any thread or process may do it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.data.sampling import index_of, micro_batch_numbers
from aimcore.data.transforms import draw_crops, normalize, render_crop, render_evaluation, to_channels, to_unit
from aimcore.errors import UnreadableSample
from aimcore.experiment import Data
from aimcore.patches import images_of
from aimcore.randomness import keyed_integers
from aimcore.roles import OpenSource
from aimcore.values import Batch, Sample, View

MAX_REPLACEMENTS = 64
"""Images drawn for one sample before it is given up: so many failures mean that next to nothing is readable."""


@attrs.frozen(eq=False)
class Loaded:
    """A batch as it comes from a worker, with what could not be read on the way."""

    batch: Batch | None
    failures: tuple[UnreadableSample, ...]


@attrs.frozen
class Rendering:
    """What is made of each image: its own rendering and the views, as (key, size in pixels, normalise)."""

    patch_size: int
    size: int
    views: tuple[tuple[str, int, bool], ...]

    @classmethod
    def of(cls, data: Data, patch_size: int, views: Sequence[View]) -> Rendering:
        """The renderings of a square crop of ``data.image_size`` pixels."""
        patches = data.image_size // patch_size
        wanted = tuple((view.key, patches * view.pixels_per_patch, view.normalize) for view in views)
        return cls(patch_size, data.image_size, wanted)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size that is needed, once."""
        return tuple(sorted({self.size, *(size for _, size, _ in self.views)}))


@attrs.frozen(eq=False)
class TrainingLoader:
    """Loads micro-batches by number: number = step * accumulation steps + micro."""

    data: Data
    source: OpenSource
    rendering: Rendering
    seed: int
    rank: int
    world_size: int
    accumulation_steps: int

    def __getitem__(self, micro_batch: int) -> Loaded:
        step, micro = divmod(micro_batch, self.accumulation_steps)
        numbers = micro_batch_numbers(
            step,
            micro,
            batch_size=self.data.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            accumulation_steps=self.accumulation_steps,
        )
        failures: list[UnreadableSample] = []
        samples = self._read(numbers, failures)
        if samples is None:
            return Loaded(None, tuple(failures))
        images = [to_channels(sample.image, len(self.data.mean)) for sample in samples]
        crops = draw_crops(self.data.augmentation, self.seed, numbers, [(i.shape[1], i.shape[2]) for i in images])
        pixels = {
            size: to_unit([render_crop(image, crop, size) for image, crop in zip(images, crops, strict=True)])
            for size in self.rendering.sizes
        }
        return Loaded(_assemble(self, samples, numbers, pixels), tuple(failures))

    def _read(self, numbers: npt.NDArray[np.int64], failures: list[UnreadableSample]) -> list[Sample] | None:
        samples = []
        for number, index in zip(
            numbers.tolist(), index_of(numbers, len(self.source), self.seed).tolist(), strict=True
        ):
            sample = self._read_one(number, index, failures)
            if sample is None:
                return None
            samples.append(sample)
        return samples

    def _read_one(self, number: int, index: int, failures: list[UnreadableSample]) -> Sample | None:
        """The sample at ``index``, or the first readable one of those drawn in its place; None if there is none."""
        for attempt in range(MAX_REPLACEMENTS):
            try:
                return self.source.read(index)
            except UnreadableSample as failure:
                failures.append(failure)
                index = int(keyed_integers(self.seed, f"replacement {attempt}", number, 0, len(self.source)))
        return None


@attrs.frozen(eq=False)
class EvaluationLoader:
    """Loads the batches of ``indices`` by number."""

    data: Data
    source: OpenSource
    rendering: Rendering
    seed: int
    indices: npt.NDArray[np.int64]
    batch_size: int

    def __getitem__(self, number: int) -> Loaded:
        samples, kept, failures = [], [], []
        for index in self.indices[number * self.batch_size : (number + 1) * self.batch_size].tolist():
            try:
                samples.append(self.source.read(index))
                kept.append(index)
            except UnreadableSample as failure:
                failures.append(failure)
        if not samples:
            return Loaded(None, tuple(failures))
        images = [to_channels(sample.image, len(self.data.mean)) for sample in samples]
        pixels = {
            size: to_unit([render_evaluation(image, size, self.data.eval_crop) for image in images])
            for size in self.rendering.sizes
        }
        return Loaded(_assemble(self, samples, np.asarray(kept), pixels), tuple(failures))


def _assemble(
    loader: TrainingLoader | EvaluationLoader,
    samples: Sequence[Sample],
    numbers: npt.NDArray[np.int64],
    pixels: dict[int, Tensor],
) -> Batch:
    data, rendering = loader.data, loader.rendering
    labels = [sample.label for sample in samples]
    return Batch(
        images=images_of(normalize(pixels[rendering.size], data.mean, data.std), rendering.patch_size),
        sample_numbers_B=torch.from_numpy(numbers),
        seed=loader.seed,
        labels_B=None if None in labels else torch.tensor(labels),
        views={
            key: normalize(pixels[size], data.mean, data.std) if normalized else pixels[size]
            for key, size, normalized in rendering.views
        },
        extras={"identifiers": tuple(sample.identifier for sample in samples)},
    )
