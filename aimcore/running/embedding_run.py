"""``aimcore embed``: features of every image of a source, stored in a zarr group or a Parquet file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import attrs
import torch
from loguru import logger

from aimcore.contracts import limits
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import DataNotFound, InvalidValue, TooManyUnreadable
from aimcore.contracts.messages import shown
from aimcore.contracts.sources import OpenSource, Source
from aimcore.encoders.embedding import Embedding, described_embedding, embed, rows_per_part, shape_of
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.encoders.embedding_table import PARTIAL_GROUP, is_table, opened_table, write_table
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.loading import load_encoder
from aimcore.encoders.preprocessing import EncoderTransform, transform_for
from aimcore.evaluation.feature_keys import described, software, weights_digest
from aimcore.io.atomic_files import CannotWrite
from aimcore.io.launcher import local_rank, rank, world_size
from aimcore.io.locations import is_on_web
from aimcore.io.parquet_library import require_pyarrow
from aimcore.recipe.writing import plain
from aimcore.running.embedded_images import require_same_images
from aimcore.running.image_sources import source_named

_SECONDS_BETWEEN_LOOKS = 0.2
MOST_NAMED = 20
"""Largest number of unreadable images that are named."""

Progress = Callable[[str, int, int], None]


@attrs.frozen
class Embedded:
    """What ``aimcore embed`` has stored."""

    url: str
    num_images: int
    num_unreadable: int
    is_new: bool
    """False if everything was stored before."""
    is_complete: bool
    """False in a process that leaves the end to the first one."""


def embed_source(
    encoder_text: str,
    data_text: str,
    out: str,
    embedding: Embedding,
    *,
    image_size: int | None = None,
    area: int | None = None,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
    encoder_settings: Mapping[str, Any] | None = None,
) -> Embedded:
    """Embed the images of a source, from where an earlier call stopped.

    The processes of a launcher (torchrun) share the parts and do not communicate. The first one waits for all parts,
    and finishes.

    Args:
        encoder_text: see :func:`aimcore.load_encoder`.
        data_text: see :func:`aimcore.running.image_sources.source_named`.
        out: a zarr group (``*.zarr``) or a Parquet file (``*.parquet``), by path or URL.
        embedding: what is stored of each image.
        image_size: side of the images in pixels; by default that of the encoder.
        area: keep the images' aspect ratio, with at most this number of patches.
        num_workers: processes that read images; 0 reads in a thread.
        progress: is called with (what, number done, total).
        encoder_settings: other arguments of :func:`aimcore.load_encoder`.

    Raises:
        AimcoreError: the encoder or the data cannot be used, or the output holds something else.
    """
    if problems := list(at_least("workers", num_workers, 0, limits.PROCESSES)):
        raise InvalidValue("embed", problems)
    place = _place_of(out)
    source = source_named(data_text)
    encoder = load_encoder(encoder_text, **(encoder_settings or {}))
    transform = transform_for(encoder.trunk, encoder.transform, image_size=image_size, area=area)
    embedding = embedding.for_encoder(encoder)
    opened = source.open()
    if not len(opened):
        raise DataNotFound(f"{shown(data_text)} has no images")
    description = _description(encoder, source, opened, transform, embedding)
    if is_table(out) and (found := opened_table(out)) is not None:
        found.require_same(description)
        require_same_images(out, found.some_names(), opened)
        return Embedded(out, found.num_rows, found.num_unreadable, is_new=False, is_complete=True)
    store = _begun(
        place, description, _about(encoder_text, encoder_settings, source, opened), encoder, embedding, transform
    )
    require_same_images(out, store.some_names(), opened)
    is_new = not store.is_complete
    if is_new:
        num_missing = sum(len(store.rows_of(part)) for part in store.missing())
        num_stored = store.num_rows - num_missing
        logger.info("{}: {} images, {} stored already", out, f"{store.num_rows:,}", f"{num_stored:,}")
        _compute(encoder.to(_device()), opened, transform, embedding, store, num_workers, progress)
        if rank() != 0:
            return Embedded(out, store.num_rows, 0, is_new=True, is_complete=False)
        _wait(store, progress)
    return _finished(out, store, is_new=is_new)


def _place_of(out: str) -> str:
    """Return the zarr group that is written first: of a Parquet file, one beside it."""
    suffix = PurePosixPath(out).suffix
    if is_on_web(out):
        problem = (
            f"{shown(out)} is on the web, where nothing can be written: give a local path or a store such as s3://"
        )
        raise InvalidValue("embed", [("out", problem)])
    if is_table(out):
        require_pyarrow()
        return f"{out}{PARTIAL_GROUP}"
    if suffix != ".zarr":
        raise InvalidValue("embed", [("out", f"must end in .zarr or .parquet, got {shown(out)}")])
    return out


def _description(
    encoder: Encoder, source: Source, opened: OpenSource, transform: EncoderTransform, embedding: Embedding
) -> Mapping[str, Any]:
    """Return everything that the stored bytes depend on."""
    module = encoder.objective_module if embedding.reads == "joint" else encoder.module
    assert module is not None
    return {
        "encoder": {"trunk": described(encoder.trunk), "weights": weights_digest(module)},
        "source": described(source),
        "num_images": len(opened),
        **described_embedding(embedding, transform),
        **software(),
        "torch": str(torch.__version__),
    }


def _about(text: str, settings: Mapping[str, Any] | None, source: Source, opened: OpenSource) -> Mapping[str, Any]:
    named = {"encoder": text, **({"encoder_settings": dict(settings)} if settings else {})}
    return {**named, "source": plain(source), "class_names": list(opened.class_names)}


def _begun(
    place: str,
    description: Mapping[str, Any],
    about: Mapping[str, Any],
    encoder: Encoder,
    embedding: Embedding,
    transform: EncoderTransform,
) -> EmbeddingStore:
    shape = shape_of(encoder, embedding, transform)
    return EmbeddingStore.begin(
        place,
        description,
        about,
        num_rows=int(description["num_images"]),
        shape=shape,
        dtype=embedding.dtype,
        rows_per_part=rows_per_part(embedding, shape),
    )


def _compute(
    encoder: Encoder,
    source: OpenSource,
    transform: EncoderTransform,
    embedding: Embedding,
    store: EmbeddingStore,
    num_workers: int,
    progress: Progress,
) -> None:
    wanted = [part for part in store.missing() if part % world_size() == rank()]
    total, done, num_failed = sum(len(store.rows_of(part)) for part in wanted), 0, 0
    parts = embed(
        encoder, source, transform, embedding, store, wanted, num_workers=num_workers,
        on_batch=lambda number: progress("embedding", done + number, total),
    )  # fmt: skip
    for part in parts:
        for failure in part.failures[: max(0, MOST_NAMED - num_failed)]:
            logger.warning("{}: it gets no features", failure)
        num_failed += len(part.failures)
        done += len(part.rows)
        progress("embedding", done, total)
    if lost := set(wanted).intersection(store.missing()):
        raise CannotWrite(store.url, f"parts {sorted(lost)} of {store.url} were written, and are not found there")


def _wait(store: EmbeddingStore, progress: Progress) -> None:
    """Wait until other processes have stored their parts."""
    while missing := len(store.missing()):
        progress("waiting for other processes", store.num_parts - missing, store.num_parts)
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _finished(out: str, store: EmbeddingStore, *, is_new: bool) -> Embedded:
    unreadable = store.unreadable()
    if len(unreadable) == store.num_rows:
        raise TooManyUnreadable(f"none of the {store.num_rows:,} images could be read; the first: {unreadable[0]}")
    if not store.is_complete:
        store.finish()
    if is_table(out):
        write_table(store, out)
    return Embedded(out, store.num_rows, len(unreadable), is_new=is_new, is_complete=True)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank() % torch.cuda.device_count())
