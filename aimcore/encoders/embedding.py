"""Embedding of a source: features of every image from a frozen encoder, in parts that can be computed in any order.

A part is a range of rows. Its images are read, grouped by the shape in which the encoder reads them, and embedded in
batches of one shape, without padding. What a part contains depends on nothing outside of it, so that any number of
processes, in any order and after any interruption, give the same bytes.

Shape suffixes: B images, N patches, D width; lower-case n is the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from copy import copy
from typing import Any, Literal, cast

import attrs
import numpy as np
import torch
from torch import Tensor

from aimcore.contracts import limits
from aimcore.contracts.batches import Batch
from aimcore.contracts.component import Checked, at_least, settings
from aimcore.contracts.errors import InvalidValue, Problem, UnreadableSample
from aimcore.contracts.images import PatchGrid, images_of
from aimcore.contracts.labels import label_of
from aimcore.contracts.probes import Pooling
from aimcore.contracts.sources import OpenSource
from aimcore.data.streaming import stream
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.preprocessing import MOST_PATCHES, EncoderTransform
from aimcore.encoders.stored_embeddings import NO_LABEL, EmbeddedRows
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.feature_extraction import batch_features
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.experiment import Precision

PART_ROWS = 256
"""Largest number of rows of a part, unless a batch is larger: what an interruption loses at most."""
PART_BYTES = 32 * 2**20
"""Approximate largest size of the features of a part."""


@settings
class Embedding(Checked):
    """What is computed and stored of each image."""

    reads: Literal["auto", "pooled", "tokens", "joint"] = "auto"
    """``"pooled"`` ``[D]``, ``"tokens"`` ``[N, D]`` in raster order, or ``"joint"`` ``[E]``: the embedding in the space
    that an encoder with two towers shares with texts. ``"auto"`` is ``"joint"`` for such an encoder unless blocks are
    chosen, otherwise ``"pooled"``."""
    pooling: Pooling = "mean"
    """The tokens that ``"pooled"`` combines."""
    layers: tuple[int, ...] = ()
    """Blocks whose raw outputs are averaged; none is the output after the final norm."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored numbers."""
    precision: Precision = "fp32"
    batch_size: int = 64
    """Images per forward pass; images of different shapes never share one."""

    def problems(self) -> Iterator[Problem]:
        """Yield a batch without images, and settings that cannot be combined."""
        yield from at_least("batch_size", self.batch_size, 1, limits.BATCH)
        if self.layers and (self.reads == "joint" or self.pooling != "mean"):
            yield Problem("layers", "can be chosen for tokens and their mean only: other tokens exist after all blocks")

    def for_encoder(self, encoder: Encoder) -> Embedding:
        """Return these settings with ``"auto"`` resolved.

        Raises:
            InvalidValue: the encoder lacks what the settings ask for.
        """
        chosen: Embedding = self
        if self.reads == "auto":
            is_joint = has_towers(encoder) and not self.layers
            chosen = attrs.evolve(cast(Any, self), reads="joint" if is_joint else "pooled")
        if problems := list(chosen._problems_with(encoder)):
            raise InvalidValue("embed", problems)
        return chosen

    def _problems_with(self, encoder: Encoder) -> Iterator[Problem]:
        """Yield what ``encoder`` does not have. ``reads`` is not ``"auto"``."""
        depth, name = encoder.depth, encoder.source.name
        yield from (
            Problem("layers", f"{name} has blocks 0 to {depth - 1}, and no block {layer}")
            for layer in self.layers
            if not 0 <= layer < depth
        )
        if self.reads == "pooled" and self.pooling != "mean" and not encoder.trunk.num_extra:
            yield Problem("pooling", f"{name} has no class token: use 'mean', the mean over patches")
        if self.reads == "joint" and not has_towers(encoder):
            yield Problem("reads", f"{name} has no text tower, so there is no space that images share with texts")

    @property
    def kind(self) -> FeatureKind:
        """The kind of features of the trunk, for all but ``"joint"``."""
        reads: Literal["pooled", "tokens"] = "tokens" if self.reads == "tokens" else "pooled"
        return FeatureKind(reads, self.layers, self.pooling if reads == "pooled" else "mean")


def has_towers(encoder: Encoder) -> bool:
    """Whether the encoder embeds images and texts in one space."""
    return encoder.objective is not None and "embed" in encoder.objective.skills


@attrs.frozen(eq=False)
class Row:
    """An image that was read and rendered; ``rendered_CHW`` is None if it could not be read."""

    identifier: str
    label: int | None
    rendered_CHW: Tensor | None


@attrs.frozen(eq=False)
class Part:
    """The rendered images of a range of rows."""

    number: int
    rows: tuple[Row, ...]
    failures: tuple[UnreadableSample, ...]


@attrs.frozen(eq=False)
class PartLoader:
    """Reads and renders the images of a part by its number, in any thread or process."""

    source: OpenSource
    transform: EncoderTransform
    rows_per_part: int

    def __getitem__(self, number: int) -> Part:
        first = number * self.rows_per_part
        rows: list[Row] = []
        failures: list[UnreadableSample] = []
        for index in range(first, min(first + self.rows_per_part, len(self.source))):
            try:
                sample = self.source.read(index)
                # A copy, because a view of the decoded image would keep the whole image in memory.
                rows.append(Row(sample.identifier, label_of(sample), self.transform.rendered(sample.image).clone()))
            except UnreadableSample as failure:
                failures.append(copy(failure))  # without its traceback, for the same reason
                rows.append(Row(failure.identifier, None, None))
        return Part(number, tuple(rows), tuple(failures))


def shape_of(encoder: Encoder, embedding: Embedding, transform: EncoderTransform) -> tuple[int, ...]:
    """Return the shape of the features of one image. Tokens of native images are filled up to the largest number."""
    if embedding.reads == "joint":
        side = encoder.patch_size * 2 if transform.image_size is None else transform.image_size
        pixels_1CHW = torch.zeros(1, encoder.module.num_channels, side, side)
        return (int(encoder.embed_images(pixels_1CHW).shape[1]),)
    if embedding.reads == "tokens":
        if transform.image_size is None:
            return (transform.area or MOST_PATCHES, encoder.width)
        side = transform.image_size // transform.patch_size
        return (encoder.trunk.output_grid(PatchGrid(side, side)).num_patches, encoder.width)
    return (2 * encoder.width,) if embedding.pooling == "class_and_mean" else (encoder.width,)


def rows_per_part(embedding: Embedding, shape: tuple[int, ...]) -> int:
    """Return the number of rows of a part, whose features have ``shape``: at least one batch, or several whole ones."""
    row_bytes = math.prod(shape) * np.dtype(embedding.dtype).itemsize
    most = min(PART_ROWS, PART_BYTES // max(1, row_bytes))
    return max(1, most // embedding.batch_size) * embedding.batch_size


def embed(
    encoder: Encoder,
    source: OpenSource,
    transform: EncoderTransform,
    embedding: Embedding,
    store: EmbeddingStore,
    wanted: Sequence[int],
    *,
    num_workers: int = 0,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Iterator[Part]:
    """Compute and store the parts ``wanted``; yield each part when it is stored. Memory holds a few parts.

    ``on_batch`` is called after each batch with the number of images of the present part that have features.

    Raises:
        CannotWrite: the system refused to write.
    """
    loader = PartLoader(source, transform, store.rows_per_part)
    with closing(stream(loader, wanted, num_workers, ahead=2)) as parts:
        for part in parts:
            store.write(part.number, embedded_part(encoder, part, transform, embedding, store.shape, on_batch))
            yield part


def embedded_part(
    encoder: Encoder,
    part: Part,
    transform: EncoderTransform,
    embedding: Embedding,
    shape: tuple[int, ...],
    on_batch: Callable[[int], None] = lambda _: None,
) -> EmbeddedRows:
    """Return the features of a part; NaN for images that could not be read, and after the tokens of smaller images."""
    number = len(part.rows)
    features = np.full((number, *shape), np.nan, dtype=embedding.dtype)
    grids, num_done = np.zeros((number, 2), dtype=np.int32), 0
    for places, rendered in _batches(part, embedding.batch_size):
        pixels_BCHW = transform.normalized(rendered)
        found = features_of(encoder, pixels_BCHW, embedding).float().cpu().numpy().astype(embedding.dtype)
        rows, columns = (side // transform.patch_size for side in pixels_BCHW.shape[2:])
        grid = encoder.trunk.output_grid(PatchGrid(rows, columns))
        grids[places] = grid.rows, grid.columns
        if embedding.reads == "tokens":
            features[places, : found.shape[1]] = found
        else:
            features[places] = found
        num_done += len(places)
        on_batch(num_done)
    labels = [NO_LABEL if row.label is None else row.label for row in part.rows]
    return EmbeddedRows(
        features=features,
        labels=np.array(labels, dtype=np.int64),
        grids=grids,
        readable=np.array([row.rendered_CHW is not None for row in part.rows]),
        identifiers=[row.identifier for row in part.rows],
    )


def _batches(part: Part, batch_size: int) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield rendered images of one size, at most ``batch_size`` at a time, with their places in the part."""
    places: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for place, row in enumerate(part.rows):
        if row.rendered_CHW is not None:
            places.setdefault(tuple(row.rendered_CHW.shape), []).append((place, row.rendered_CHW))
    for alike in places.values():
        for first in range(0, len(alike), batch_size):
            some = alike[first : first + batch_size]
            yield [place for place, _ in some], [rendered_CHW for _, rendered_CHW in some]


def features_of(encoder: Encoder, pixels_BCHW: Tensor, embedding: Embedding) -> Tensor:
    """Return the features of pixels of one size: ``[B, D]``, ``[B, N, D]`` or ``[B, E]``, on the encoder's device."""
    if embedding.reads == "joint":
        with eval_mode(encoder.module, embedding.precision) as device:
            return encoder.embed_images(pixels_BCHW.to(device))
    images = images_of(pixels_BCHW, encoder.patch_size)
    batch = Batch(images=images, sample_numbers_B=torch.zeros(len(pixels_BCHW), dtype=torch.int64))
    return batch_features(
        encoder.frozen_module(None if embedding.precision == "fp32" else torch.bfloat16),
        batch,
        embedding.kind,
        objective=None,
        attention="bidirectional",
        precision=embedding.precision,
    )


def described_embedding(embedding: Embedding, transform: EncoderTransform) -> dict[str, Any]:
    """Return the settings that features depend on besides encoder and source, as plain values."""
    mean, std, eval_crop = transform.preprocessing
    return {
        "reads": embedding.reads,
        "pooling": embedding.pooling,
        "layers": list(embedding.layers),
        "dtype": embedding.dtype,
        "precision": embedding.precision,
        "batch_size": embedding.batch_size,
        "pixels": {
            "mean": list(mean), "std": list(std), "eval_crop": eval_crop, "image_size": transform.image_size,
            "area": transform.area,
        },
    }  # fmt: skip
