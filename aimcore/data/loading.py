"""Batches from a source: for training by sample number, for evaluation by index.

The content of a batch depends only on its numbers, so that workers, threads, ranks and resumed runs all read the same.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from aimcore.contracts.batches import Batch, Extra, View
from aimcore.contracts.errors import DataNotFound, TooManyUnreadable
from aimcore.contracts.sources import OpenSource
from aimcore.data.batches import MAX_REPLACEMENTS, EvaluationLoader, Loaded, TrainingLoader, finished
from aimcore.data.captions import Captions, TextRequest
from aimcore.data.native import NativeSteps
from aimcore.data.rendering import Square, renderer_of
from aimcore.data.sampling import require_even_batches
from aimcore.data.streaming import stream
from aimcore.data.unreadable import Unreadable
from aimcore.experiment import Data


def train_steps(
    data: Data,
    source: OpenSource,
    *,
    patch_size: int,
    views: Sequence[View] = (),
    extras: Sequence[Extra] = (),
    text: TextRequest | None = None,
    seed: int,
    first_step: int = 0,
    num_steps: int,
    rank: int = 0,
    world_size: int = 1,
    accumulation_steps: int = 1,
    unreadable: Unreadable | None = None,
) -> Generator[list[Batch]]:
    """Yield one rank's micro-batches of each optimiser step from ``first_step`` on.

    Step k gives the same batches whatever ``first_step`` is. With ``data.num_workers`` > 0, processes load ahead that
    live as long as the generator; else a thread does. Both start at the first ``next`` and end when the generator is
    closed. The time a caller waits in ``next`` is what training loses to data.

    An unreadable image is replaced by one of the same part of the source, drawn from (seed, sample number, attempt);
    it is named in one warning.

    Args:
        data: batch size, image size, augmentation, mean and std, workers, the limit on unreadable images.
        source: what to read; pickled if there are workers.
        patch_size: side of a patch, in pixels.
        views: further renderings of each sample.
        extras: values of ``Sample.extras``, for ``batch.extras``; a sample without one counts as unreadable.
        text: a tokenizer and a context length, for ``batch.text``; the caption is drawn by ``data.caption_weights``.
        seed: the run's seed.
        first_step: number of the first step, 0 unless the run is resumed.
        num_steps: number of steps.
        rank: number of this process.
        world_size: number of processes that share each step.
        accumulation_steps: micro-batches per step on each rank.
        unreadable: counts the samples that this process cannot read.

    Returns:
        A generator of lists of ``accumulation_steps`` batches, each of batch_size / (world_size * accumulation_steps)
        samples, or with ``data.native`` of as many as the step has, which differs from step to step.
        ``extras["identifiers"]`` names the samples; with ``text``, ``extras["captions"]`` are their captions.

    Raises:
        InvalidValue: the batch size does not divide evenly (at once, not at the first ``next``).
        DataNotFound: the source is empty (at once).
        TooManyUnreadable: while iterating.
    """
    require_even_batches(data, world_size, accumulation_steps)
    _require_samples(source)
    captions, last_step = _captions(data, text), first_step + num_steps
    square = Square.of(data, patch_size, views)
    steps = None if data.native is None else NativeSteps.of(data.native, seed, last_step)
    loader = TrainingLoader(
        data, source, square, seed, rank, world_size, accumulation_steps, captions, steps, tuple(extras)
    )
    first, last = (step * accumulation_steps for step in (first_step, last_step))
    return _steps(loader, range(first, last), unreadable or Unreadable(data))


def evaluation_batches(
    data: Data,
    source: OpenSource,
    *,
    patch_size: int,
    views: Sequence[View] = (),
    extras: Sequence[Extra] = (),
    text: TextRequest | None = None,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    indices: Sequence[int] | npt.NDArray[np.int64] | None = None,
    native_area: int | None = None,
    epoch: int | None = None,
    unreadable: Unreadable | None = None,
) -> Generator[Batch]:
    """Yield samples in the order of their indices, resized and centre-cropped; the last batch may be smaller.

    Rank r takes ``indices[r::world_size]``. A sample's number is its index in the source. An unreadable image is left
    out and named in one warning, so a batch may be smaller, and an empty one is skipped.

    Args:
        data: image size, evaluation crop, mean and std, workers, the limit on unreadable images.
        source: what to read; pickled if there are workers.
        patch_size: side of a patch, in pixels.
        views: further renderings of each sample.
        extras: values of ``Sample.extras``, for ``batch.extras``; a sample without one counts as unreadable.
        text: a tokenizer and a context length, for ``batch.text``: the first caption of each sample.
        batch_size: samples per batch on this rank.
        seed: passed on in the batches; views with a crop of their own are drawn, the same for every seed.
        rank: number of this process.
        world_size: number of processes that share the samples.
        indices: indices of the samples; all by default.
        native_area: keep the images' aspect ratio, and resize each to at most this number of patches. Padding is part
            of the image, unless ``data.native`` masks it.
        epoch: augment the samples by ``data.augmentation``, with the crops that ``seed`` gives them in this pass over
            the source; None does not augment.
        unreadable: counts the samples that this process cannot read.

    Raises:
        DataNotFound: the source is empty (at once).
        TooManyUnreadable: while iterating.
    """
    _require_samples(source)
    wanted = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    own, renderer = wanted[rank::world_size], renderer_of(data, patch_size, native_area, views)
    loader = EvaluationLoader(source, renderer, seed, own, batch_size, _captions(data, text), tuple(extras), epoch)
    return _batches(loader, range(-(-len(own) // batch_size)), data, unreadable or Unreadable(data))


def _captions(data: Data, text: TextRequest | None) -> Captions | None:
    return None if text is None else Captions(*text, weights=data.caption_weights)


def _require_samples(source: OpenSource) -> None:
    if not len(source):
        raise DataNotFound(f"{type(source).__name__} has no samples: check the path or split that it was given")


def _steps(loader: TrainingLoader, micro_batches: range, unreadable: Unreadable) -> Generator[list[Batch]]:
    step: list[Batch] = []
    # Two steps ahead, so that the next one is loaded while one is consumed.
    ahead = 2 * loader.accumulation_steps
    with closing(stream(loader, micro_batches, loader.data.num_workers, ahead, finished)) as loaded:
        for batch in _readable(loaded, unreadable):
            if batch is None:
                raise TooManyUnreadable(
                    f"{MAX_REPLACEMENTS} images drawn in a row could not be read: almost nothing in this source is "
                    "readable; see the warnings for the first causes"
                )
            step.append(batch)
            if len(step) == loader.accumulation_steps:
                yield step
                step = []


def _batches(loader: EvaluationLoader, numbers: range, data: Data, unreadable: Unreadable) -> Generator[Batch]:
    with closing(stream(loader, numbers, data.num_workers, 2, finished)) as loaded:
        for batch in _readable(loaded, unreadable):
            if batch is not None:
                yield batch


def _readable(stream_of_loaded: Iterator[Loaded], unreadable: Unreadable) -> Iterator[Batch | None]:
    """Name unreadable samples, and stop beyond the limits."""
    for loaded in stream_of_loaded:
        num_readable = 0 if loaded.batch is None else len(loaded.batch.sample_numbers_B)
        unreadable.add(num_readable, loaded.failures)
        yield loaded.batch
