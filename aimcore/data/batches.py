"""A batch from its number: read, crop, render, pack. Pure, so that any thread or process may do it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.data.captions import Captions
from aimcore.data.sampling import micro_batch_numbers
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
class Example:
    """A sample with the caption that was chosen for it, where text is wanted."""

    sample: Sample
    caption: str | None


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
    captions: Captions | None = None

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
        examples = self._read(numbers, failures)
        if examples is None:
            return Loaded(None, tuple(failures))
        images = [to_channels(example.sample.image, len(self.data.mean)) for example in examples]
        crops = draw_crops(self.data.augmentation, self.seed, numbers, [(i.shape[1], i.shape[2]) for i in images])
        pixels = {
            size: to_unit([render_crop(image, crop, size) for image, crop in zip(images, crops, strict=True)])
            for size in self.rendering.sizes
        }
        return Loaded(_assemble(self, examples, numbers, pixels), tuple(failures))

    def _read(self, numbers: npt.NDArray[np.int64], failures: list[UnreadableSample]) -> list[Example] | None:
        examples = []
        for number, index in zip(numbers.tolist(), self.source.indices_of(numbers, self.seed).tolist(), strict=True):
            example = self._read_one(number, index, failures)
            if example is None:
                return None
            examples.append(example)
        return examples

    def _read_one(self, number: int, index: int, failures: list[UnreadableSample]) -> Example | None:
        """The sample at ``index``, or the first readable one of those drawn in its place; None if there is none."""
        for attempt in range(MAX_REPLACEMENTS):
            try:
                sample = self.source.read(index)
                return Example(sample, self.captions.drawn(sample, self.seed, number) if self.captions else None)
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
    captions: Captions | None = None

    def __getitem__(self, number: int) -> Loaded:
        examples, kept, failures = [], [], []
        for index in self.indices[number * self.batch_size : (number + 1) * self.batch_size].tolist():
            try:
                sample = self.source.read(index)
                examples.append(Example(sample, self.captions.first(sample) if self.captions else None))
                kept.append(index)
            except UnreadableSample as failure:
                failures.append(failure)
        if not examples:
            return Loaded(None, tuple(failures))
        images = [to_channels(example.sample.image, len(self.data.mean)) for example in examples]
        pixels = {
            size: to_unit([render_evaluation(image, size, self.data.eval_crop) for image in images])
            for size in self.rendering.sizes
        }
        return Loaded(_assemble(self, examples, np.asarray(kept), pixels), tuple(failures))


def _assemble(
    loader: TrainingLoader | EvaluationLoader,
    examples: Sequence[Example],
    numbers: npt.NDArray[np.int64],
    pixels: dict[int, Tensor],
) -> Batch:
    data, rendering = loader.data, loader.rendering
    labels = [example.sample.label for example in examples]
    captions = tuple(example.caption for example in examples if example.caption is not None)
    extras = {"identifiers": tuple(example.sample.identifier for example in examples)}
    return Batch(
        images=images_of(normalize(pixels[rendering.size], data.mean, data.std), rendering.patch_size),
        sample_numbers_B=torch.from_numpy(numbers),
        seed=loader.seed,
        text=loader.captions.encode(captions) if loader.captions else None,
        labels_B=None if None in labels else torch.tensor(labels),
        views={
            key: normalize(pixels[size], data.mean, data.std) if normalized else pixels[size]
            for key, size, normalized in rendering.views
        },
        extras=extras | {"captions": captions} if loader.captions else extras,
    )
