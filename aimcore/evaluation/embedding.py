"""Embedding of a source: features of every image from a frozen encoder, in parts that can be computed in any order.

A part is a range of rows. Its images are read, grouped by the shape in which the encoder reads them, and embedded in
batches of one shape, without padding. What a part contains depends on nothing outside of it, so that any number of
processes, in any order and after any interruption, give the same bytes.

Shape suffixes: B images, N patches, D width; lower-case n is the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from aimcore.contracts.images import Images, PatchGrid
from aimcore.contracts.labels import label_of
from aimcore.contracts.probes import Pooling
from aimcore.contracts.sources import OpenSource
from aimcore.data.rendering import Native, Renderer, Rendering
from aimcore.data.streaming import stream
from aimcore.evaluation.embedding_store import NO_LABEL, EmbeddedRows, EmbeddingStore
from aimcore.evaluation.eval_mode import eval_mode
from aimcore.evaluation.feature_extraction import batch_features
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.evaluation.frozen_encoder import FrozenEncoder
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

    def for_encoder(self, encoder: FrozenEncoder) -> Embedding:
        """Return these settings with ``"auto"`` resolved.

        Raises:
            InvalidValue: the encoder lacks what the settings ask for.
        """
        chosen: Embedding = self
        if self.reads == "auto":
            is_joint = encoder.towers is not None and not self.layers
            chosen = attrs.evolve(cast(Any, self), reads="joint" if is_joint else "pooled")
        if problems := list(chosen._problems_with(encoder)):
            raise InvalidValue("embed", problems)
        return chosen

    def _problems_with(self, encoder: FrozenEncoder) -> Iterator[Problem]:
        """Yield what ``encoder`` does not have. ``reads`` is not ``"auto"``."""
        depth, name = encoder.module.depth, encoder.name
        yield from (
            Problem("layers", f"{name} has blocks 0 to {depth - 1}, and no block {layer}")
            for layer in self.layers
            if not 0 <= layer < depth
        )
        if self.reads == "pooled" and self.pooling != "mean" and not encoder.trunk.num_extra:
            yield Problem("pooling", f"{name} has no class token: use 'mean', the mean over patches")
        if self.reads == "joint" and encoder.towers is None:
            yield Problem("reads", f"{name} has no text tower, so there is no space that images share with texts")

    @property
    def kind(self) -> FeatureKind:
        """The kind of features of the trunk, for all but ``"joint"``."""
        reads: Literal["pooled", "tokens"] = "tokens" if self.reads == "tokens" else "pooled"
        return FeatureKind(reads, self.layers, self.pooling if reads == "pooled" else "mean")


@attrs.frozen(eq=False)
class Row:
    """An image that was read and rendered; ``rendering`` is None if it could not be read."""

    identifier: str
    label: int | None
    rendering: Rendering | None


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
    renderer: Renderer
    rows_per_part: int

    def __getitem__(self, number: int) -> Part:
        first = number * self.rows_per_part
        rows: list[Row] = []
        failures: list[UnreadableSample] = []
        for index in range(first, min(first + self.rows_per_part, len(self.source))):
            try:
                sample = self.source.read(index)
                rows.append(Row(sample.identifier, label_of(sample), self.renderer.for_evaluation(sample)))
            except UnreadableSample as failure:
                failures.append(copy(failure))  # without its traceback, which would keep the decoded image in memory
                rows.append(Row(failure.identifier, None, None))
        return Part(number, tuple(rows), tuple(failures))


def rows_per_part(embedding: Embedding, shape: tuple[int, ...]) -> int:
    """Return the number of rows of a part, whose features have ``shape``: at least one batch, or several whole ones."""
    row_bytes = int(np.prod(shape)) * np.dtype(embedding.dtype).itemsize
    most = min(PART_ROWS, PART_BYTES // max(1, row_bytes))
    return max(1, most // embedding.batch_size) * embedding.batch_size


def shape_of(encoder: FrozenEncoder, embedding: Embedding, renderer: Renderer) -> tuple[int, ...]:
    """Return the shape of the features of one image. Tokens of native images are filled up to the largest number."""
    if embedding.reads == "joint":
        assert encoder.towers is not None
        return (encoder.towers.width,)
    width = encoder.module.width
    if embedding.reads == "tokens":
        side = renderer.data.image_size // renderer.patch_size
        square = encoder.trunk.output_grid(PatchGrid(side, side))
        return (renderer.area if isinstance(renderer, Native) else square.num_patches, width)
    return (2 * width,) if embedding.pooling == "class_and_mean" else (width,)


def embed(
    encoder: FrozenEncoder,
    source: OpenSource,
    renderer: Renderer,
    embedding: Embedding,
    store: EmbeddingStore,
    wanted: Sequence[int],
    *,
    num_workers: int = 0,
) -> Iterator[Part]:
    """Compute and store the parts ``wanted``; yield each part when it is stored. Memory holds a few parts.

    Raises:
        CannotWrite: the system refused to write.
    """
    loader = PartLoader(source, renderer, store.rows_per_part)
    with closing(stream(loader, wanted, num_workers, ahead=2)) as parts:
        for part in parts:
            store.write(part.number, embedded_part(encoder, part, renderer, embedding, store.shape))
            yield part


def embedded_part(
    encoder: FrozenEncoder, part: Part, renderer: Renderer, embedding: Embedding, shape: tuple[int, ...]
) -> EmbeddedRows:
    """Return the features of a part; NaN for images that could not be read, and after the tokens of smaller images."""
    number = len(part.rows)
    features = np.full((number, *shape), np.nan, dtype=embedding.dtype)
    grids = np.zeros((number, 2), dtype=np.int32)
    for places, images in _batches(part, renderer, embedding.batch_size):
        found = features_of(encoder, images, embedding).float().cpu().numpy().astype(embedding.dtype)
        grid = encoder.trunk.output_grid(images.grid)
        grids[places] = grid.rows, grid.columns
        if embedding.reads == "tokens":
            features[places, : found.shape[1]] = found
        else:
            features[places] = found
    labels = [NO_LABEL if row.label is None else row.label for row in part.rows]
    return EmbeddedRows(
        features=features,
        labels=np.array(labels, dtype=np.int64),
        grids=grids,
        readable=np.array([row.rendering is not None for row in part.rows]),
        identifiers=[row.identifier for row in part.rows],
    )


def _batches(part: Part, renderer: Renderer, batch_size: int) -> Iterator[tuple[list[int], Images]]:
    """Yield images of one grid, at most ``batch_size`` at a time, with their places in the part."""
    for grid, places in _by_grid(part, renderer).items():
        # Patches up to the area are not part of an image: a batch of one grid needs none.
        one = attrs.evolve(renderer, area=grid.num_patches) if isinstance(renderer, Native) else renderer
        for first in range(0, len(places), batch_size):
            some = places[first : first + batch_size]
            renderings = [row.rendering for row in (part.rows[place] for place in some) if row.rendering is not None]
            yield some, one.together(renderings).images


def _by_grid(part: Part, renderer: Renderer) -> Mapping[PatchGrid, list[int]]:
    found: dict[PatchGrid, list[int]] = {}
    for place, row in enumerate(part.rows):
        if row.rendering is not None:
            height, width = row.rendering[0].shape[1:]
            grid = PatchGrid(-(-height // renderer.patch_size), -(-width // renderer.patch_size))
            found.setdefault(grid, []).append(place)
    return found


def features_of(encoder: FrozenEncoder, images: Images, embedding: Embedding) -> Tensor:
    """Return the features of images of one grid: ``[B, D]``, ``[B, N, D]`` or ``[B, E]``, on the encoder's device."""
    if embedding.reads == "joint":
        assert encoder.towers is not None
        with eval_mode(encoder.towers.module, embedding.precision) as device:
            return encoder.towers.embed_images(images.to(device))
    batch = Batch(images=images, sample_numbers_B=torch.zeros(len(images.grids), dtype=torch.int64))
    return batch_features(
        encoder.module,
        batch,
        embedding.kind,
        objective=encoder.objective,
        attention=encoder.attention,
        precision=embedding.precision,
    )


def described_embedding(embedding: Embedding, renderer: Renderer) -> dict[str, Any]:
    """Return the settings that features depend on besides encoder and source, as plain values."""
    data = renderer.data
    pixels: dict[str, Any] = {"mean": list(data.mean), "std": list(data.std)}
    if isinstance(renderer, Native):
        pixels["area"] = renderer.area
    else:
        pixels |= {"image_size": data.image_size, "eval_crop": data.eval_crop}
    return {
        "reads": embedding.reads,
        "pooling": embedding.pooling,
        "layers": list(embedding.layers),
        "dtype": embedding.dtype,
        "precision": embedding.precision,
        "batch_size": embedding.batch_size,
        "pixels": pixels,
    }
