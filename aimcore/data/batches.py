"""A batch from its number: read, crop, render, pack. Pure, so that any thread or process may do it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimcore.data.captions import Captions
from aimcore.data.native import NativeSteps
from aimcore.data.rendering import Native, Rendered, Square
from aimcore.data.sampling import part_of_step
from aimcore.data.transforms import draw_crops, draw_whole, to_channels
from aimcore.errors import UnreadableSample
from aimcore.experiment import Data
from aimcore.randomness import keyed_integers
from aimcore.roles import OpenSource
from aimcore.values import Batch, Sample

MAX_REPLACEMENTS = 64
"""Images drawn for one sample before it is given up: so many failures mean that next to nothing is readable."""


@attrs.frozen(eq=False)
class Loaded:
    """A batch as it comes from a worker, with what could not be read on the way."""

    batch: Batch | None
    failures: tuple[UnreadableSample, ...]


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
    rendering: Square | Native
    seed: int
    rank: int
    world_size: int
    accumulation_steps: int
    captions: Captions | None = None
    native: NativeSteps | None = None
    """The steps of a run at native resolution."""

    def __getitem__(self, micro_batch: int) -> Loaded:
        step, micro = divmod(micro_batch, self.accumulation_steps)
        numbers = self._numbers(step, micro)
        failures: list[UnreadableSample] = []
        examples = self._read(numbers, failures)
        if examples is None:
            return Loaded(None, tuple(failures))
        images = [to_channels(example.sample.image, len(self.data.mean)) for example in examples]
        return Loaded(_assemble(self, examples, numbers, self._rendered(images, numbers, step)), tuple(failures))

    def _numbers(self, step: int, micro: int) -> npt.NDArray[np.int64]:
        """Sample numbers of this rank's micro-batch."""
        parts, part = self.world_size * self.accumulation_steps, micro * self.world_size + self.rank
        if self.native is None:
            size = self.data.batch_size
            return part_of_step(step * size, size // parts, part)
        return part_of_step(int(self.native.first_S[step]), int(self.native.num_images_S[step]) // parts, part)

    def _rendered(self, images: Sequence[Tensor], numbers: npt.NDArray[np.int64], step: int) -> Rendered:
        draw = draw_crops if self.native is None else draw_whole
        crops = draw(self.data.augmentation, self.seed, numbers, [(i.shape[1], i.shape[2]) for i in images])
        if isinstance(self.rendering, Square):
            return self.rendering.cropped(images, crops)
        assert self.native is not None
        return self.rendering.fitted(images, int(self.native.area_S[step]), crops)

    def _read(self, numbers: npt.NDArray[np.int64], failures: list[UnreadableSample]) -> list[Example] | None:
        examples = []
        for number, index in zip(numbers.tolist(), self.source.indices_of(numbers, self.seed).tolist(), strict=True):
            example = self._read_one(number, index, failures)
            if example is None:
                return None
            examples.append(example)
        return examples

    def _read_one(self, number: int, index: int, failures: list[UnreadableSample]) -> Example | None:
        """The sample at ``index``, or the first readable one of its part drawn in its place; None if none is."""
        part = self.source.part_of(index)
        for attempt in range(MAX_REPLACEMENTS):
            try:
                sample = self.source.read(index)
                return Example(sample, self.captions.drawn(sample, self.seed, number) if self.captions else None)
            except UnreadableSample as failure:
                failures.append(failure)
                index = int(keyed_integers(self.seed, f"replacement {attempt}", number, part.start, part.stop))
        return None


@attrs.frozen(eq=False)
class EvaluationLoader:
    """Loads the batches of ``indices`` by number."""

    data: Data
    source: OpenSource
    rendering: Square | Native
    seed: int
    indices: npt.NDArray[np.int64]
    batch_size: int
    captions: Captions | None = None
    area: int = 0
    """Patches that images are fitted in, where they keep their aspect ratio."""

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
        rendering = self.rendering
        rendered = rendering.centred(images) if isinstance(rendering, Square) else rendering.fitted(images, self.area)
        return Loaded(_assemble(self, examples, np.asarray(kept), rendered), tuple(failures))


def _assemble(
    loader: TrainingLoader | EvaluationLoader,
    examples: Sequence[Example],
    numbers: npt.NDArray[np.int64],
    rendered: Rendered,
) -> Batch:
    labels = [example.sample.label for example in examples]
    captions = tuple(example.caption for example in examples if example.caption is not None)
    extras = {"identifiers": tuple(example.sample.identifier for example in examples)}
    return Batch(
        images=rendered.images,
        sample_numbers_B=torch.from_numpy(numbers),
        seed=loader.seed,
        text=loader.captions.encode(captions) if loader.captions else None,
        labels_B=None if None in labels else torch.tensor(labels),
        views=rendered.views,
        extras=extras | {"captions": captions} if loader.captions else extras,
    )
