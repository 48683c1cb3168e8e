"""Loading of a batch from its number: read, crop, render, pack. It is pure, so that any thread or process can do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch

from aimcore.contracts.batches import Batch, Extra, Sample
from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.labels import label_of
from aimcore.contracts.randomness import keyed_integers
from aimcore.contracts.sources import OpenSource
from aimcore.data.captions import Captions
from aimcore.data.extras import collated, read_extras
from aimcore.data.native import NativeSteps
from aimcore.data.rendering import Native, Renderer, Rendering, Square, normalized
from aimcore.data.sampling import part_of_step
from aimcore.experiment import Data

Render = Callable[[Sample], Rendering]

MAX_REPLACEMENTS = 64
"""Number of images that are tried for one sample: as many failures mean that almost nothing is readable."""


@attrs.frozen(eq=False)
class Loaded:
    """A batch from a worker, with the samples that could not be read."""

    batch: Batch | None
    """Its images are uint8, until :func:`finished`."""
    failures: tuple[UnreadableSample, ...]


def finished(loaded: Loaded) -> Loaded:
    """Return the batch with normalised images. The process that uses them normalises: bytes travel faster."""
    if loaded.batch is None:
        return loaded
    return attrs.evolve(loaded, batch=attrs.evolve(loaded.batch, images=normalized(loaded.batch.images)))


@attrs.frozen(eq=False)
class Example:
    """A sample that was read and rendered. Its decoded image is gone: a batch of them may be too much for memory."""

    rendering: Rendering
    identifier: str
    label: int | None
    caption: str | None
    extras: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class TrainingLoader:
    """Loads micro-batches by number: number = step * accumulation steps + micro."""

    data: Data
    source: OpenSource
    square: Square
    """Renders samples, unless the run is at native resolution."""
    seed: int
    rank: int
    world_size: int
    accumulation_steps: int
    captions: Captions | None = None
    native: NativeSteps | None = None
    """The steps of a run at native resolution."""
    extras: tuple[Extra, ...] = ()

    def __getitem__(self, micro_batch: int) -> Loaded:
        step, micro = divmod(micro_batch, self.accumulation_steps)
        numbers, renderer = self._numbers(step, micro), self._renderer(step)
        draws = renderer.draws(self.seed, numbers)
        examples: list[Example] = []
        failures: list[UnreadableSample] = []
        indices = self.source.indices_of(numbers, self.seed).tolist()
        for place, (number, index) in enumerate(zip(numbers.tolist(), indices, strict=True)):
            render = partial(renderer.for_training, draws=draws, place=place)
            example = self._readable(index, number, render, failures)
            if example is None:
                return Loaded(None, tuple(failures))
            examples.append(example)
        return Loaded(_assemble(self, renderer, examples, numbers), tuple(failures))

    def _numbers(self, step: int, micro: int) -> npt.NDArray[np.int64]:
        """Return the sample numbers of this rank's micro-batch."""
        parts, part = self.world_size * self.accumulation_steps, micro * self.world_size + self.rank
        if self.native is None:
            size = self.data.batch_size
            return part_of_step(step * size, size // parts, part)
        return part_of_step(int(self.native.first_S[step]), int(self.native.num_images_S[step]) // parts, part)

    def _renderer(self, step: int) -> Renderer:
        if self.native is None:
            return self.square
        return Native(self.data, self.square.patch_size, self.square.views, int(self.native.area_S[step]))

    def _readable(self, index: int, number: int, render: Render, failures: list[UnreadableSample]) -> Example | None:
        """Return the sample at ``index``, or the first readable replacement from its part, or None."""
        part = self.source.part_of(index)
        for attempt in range(MAX_REPLACEMENTS):
            try:
                return self._example(index, number, render)
            except UnreadableSample as failure:
                failures.append(copy(failure))  # without its traceback, which would keep the decoded image in memory
                index = int(keyed_integers(self.seed, f"replacement {attempt}", number, part.start, part.stop))
        return None

    def _example(self, index: int, number: int, render: Render) -> Example:
        sample = self.source.read(index)
        caption = self.captions.drawn(sample, self.seed, number) if self.captions else None
        extras = read_extras(sample, self.extras)
        return Example(render(sample), sample.identifier, label_of(sample), caption, extras)


@attrs.frozen(eq=False)
class EvaluationLoader:
    """Loads the batches of ``indices`` by number: rendered for evaluation, or augmented as in training."""

    source: OpenSource
    renderer: Renderer
    seed: int
    indices: npt.NDArray[np.int64]
    batch_size: int
    captions: Captions | None = None
    extras: tuple[Extra, ...] = ()
    epoch: int | None = None
    """Number of the pass over the source, which determines the crops; None renders for evaluation."""

    def __getitem__(self, number: int) -> Loaded:
        examples, kept, failures = [], [], []
        wanted = self.indices[number * self.batch_size : (number + 1) * self.batch_size]
        how: Callable[..., Rendering] = self.renderer.for_evaluation
        draws = self.renderer.evaluation_draws(wanted)
        if self.epoch is not None:
            # An image has another sample number in every pass, as in training.
            how = self.renderer.for_training
            draws = self.renderer.draws(self.seed, wanted + self.epoch * len(self.source))
        for place, index in enumerate(wanted.tolist()):
            render = partial(how, draws=draws, place=place)
            try:
                examples.append(self._example(index, render))
                kept.append(index)
            except UnreadableSample as failure:
                failures.append(copy(failure))  # as in training
        batch = _assemble(self, self.renderer, examples, np.asarray(kept)) if examples else None
        return Loaded(batch, tuple(failures))

    def _example(self, index: int, render: Render) -> Example:
        sample = self.source.read(index)
        caption = self.captions.first(sample) if self.captions else None
        extras = read_extras(sample, self.extras)
        return Example(render(sample), sample.identifier, label_of(sample), caption, extras)


def _assemble(
    loader: TrainingLoader | EvaluationLoader,
    renderer: Renderer,
    examples: Sequence[Example],
    numbers: npt.NDArray[np.int64],
) -> Batch:
    rendered = renderer.packed([example.rendering for example in examples])
    labels = [example.label for example in examples]
    captions = tuple(example.caption for example in examples if example.caption is not None)
    extras = collated([example.extras for example in examples])
    extras["identifiers"] = tuple(example.identifier for example in examples)
    return Batch(
        images=rendered.images,
        sample_numbers_B=torch.from_numpy(numbers),
        seed=loader.seed,
        text=loader.captions.encode(captions) if loader.captions else None,
        labels_B=None if None in labels else torch.tensor(labels),
        views=rendered.views,
        extras=extras | {"captions": captions} if loader.captions else extras,
    )
