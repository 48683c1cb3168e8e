"""``aimcore search``: the images of stored embeddings that are nearest to an image or a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from torch import Tensor

from aimcore.contracts.errors import AimcoreError, UnreadableSample
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.messages import shown
from aimcore.contracts.sources import Source
from aimcore.data.pictures import SUFFIXES, read_picture
from aimcore.encoders.embedding import Embedding, features_of, has_towers
from aimcore.encoders.embedding_table import open_embeddings
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.loading import load_encoder
from aimcore.encoders.preprocessing import EncoderTransform
from aimcore.encoders.search import CannotSearch, Neighbour, nearest
from aimcore.encoders.stored_embeddings import StoredEmbeddings
from aimcore.evaluation.feature_keys import weights_digest
from aimcore.io.locations import file_system
from aimcore.recipe.reading import structured
from aimcore.registry.plugins import installed


@attrs.frozen(eq=False)
class Found:
    """The result of a search."""

    query: str
    picture_CHW: Tensor | None
    """The image that was searched for; None for a text."""
    neighbours: Sequence[Neighbour]
    pictures: Mapping[int, Tensor]
    """The pictures of the neighbours by row, ``uint8 [C, H, W]``, as far as their source can be read."""
    class_names: Sequence[str]


def search(url: str, query: str, number: int, *, encoder_text: str | None = None, is_text: bool = False) -> Found:
    """Find the images whose embeddings at ``url`` are nearest to a query.

    Args:
        url: a zarr group or a Parquet file that ``aimcore embed`` wrote.
        query: an image by path or URL, or a text.
        number: number of images to find.
        encoder_text: the encoder that made the embeddings; by default as it was named then.
        is_text: whether ``query`` is a text even if a file has this name.

    Raises:
        CannotSearch: the encoder is another one, or reads no texts.
        UnreadableSample: the image cannot be read.
        AimcoreError: the embeddings or the encoder cannot be opened.
    """
    store = open_embeddings(url)
    if store.width is None:
        raise CannotSearch(f"{url} holds tokens, and a search compares one vector per image: embed without --tokens")
    is_picture = not is_text and _is_picture(query)
    if not is_picture and store.description["reads"] != "joint":
        raise CannotSearch(_no_texts(url, query))
    picture_CHW = read_picture(query)[1] if is_picture else None
    encoder = _encoder(store, encoder_text)
    _require_same(store, encoder)
    vector_D = _text_vector(encoder, query) if picture_CHW is None else _image_vector(store, encoder, picture_CHW)
    neighbours = nearest(store, vector_D, number)
    return Found(query, picture_CHW, neighbours, _pictures(store, neighbours), store.about["class_names"])


def _encoder(store: StoredEmbeddings, given: str | None) -> Encoder:
    try:
        return load_encoder(given or str(store.about["encoder"]), **store.about.get("encoder_settings", {}))
    except AimcoreError as error:
        if given is None:
            error.add_note(
                f"it is the encoder of {store.url}, as it was named then; give its new place: --encoder ENCODER"
            )
        raise


def _is_picture(query: str) -> bool:
    if PurePosixPath(query).suffix.lower() in SUFFIXES or "://" in query:
        return True
    try:
        files, path = file_system(query)
        return bool(files.isfile(path))
    except (AimcoreError, OSError, ValueError):
        return False


def _no_texts(url: str, query: str) -> str:
    return (
        f"{shown(query)} is not a file, and texts cannot be searched for in {url}: its embeddings are not in "
        "a space that images share with texts. Give an image, or embed with an encoder with a text tower (LiT, CLIP, "
        "SigLIP) and --pool joint"
    )


def _require_same(store: StoredEmbeddings, encoder: Encoder) -> None:
    is_joint = store.description["reads"] == "joint"
    if is_joint and not has_towers(encoder):
        raise CannotSearch(f"{encoder.source.name} has no text tower, and the encoder of {store.url} has one")
    module = encoder.objective_module if is_joint else encoder.module
    assert module is not None
    if weights_digest(module) != store.description["encoder"]["weights"]:
        raise CannotSearch(
            f"{encoder.source.name} is not the encoder of {store.url}: its weights are others. Give that encoder: "
            "--encoder ENCODER"
        )


def _text_vector(encoder: Encoder, text: str) -> npt.NDArray[np.float32]:
    return np.asarray(encoder.embed_texts([text])[0].float().cpu().numpy(), dtype=np.float32)


def _image_vector(store: StoredEmbeddings, encoder: Encoder, picture_CHW: Tensor) -> npt.NDArray[np.float32]:
    described: Any = store.description
    pixels = described["pixels"]
    preprocessing = Preprocessing(tuple(pixels["mean"]), tuple(pixels["std"]), pixels["eval_crop"])
    transform = EncoderTransform(preprocessing, pixels["image_size"], encoder.patch_size, pixels["area"])
    names = ("reads", "pooling", "layers", "dtype", "precision", "batch_size")
    embedding = Embedding(**{name: described[name] for name in names})
    vector = features_of(encoder, transform.normalized([transform.rendered(picture_CHW)]), embedding)[0]
    return np.asarray(vector.to(torch.float32).cpu().numpy(), dtype=np.float32)


def _pictures(store: StoredEmbeddings, neighbours: Sequence[Neighbour]) -> Mapping[int, Tensor]:
    """Read the pictures of the neighbours from the source that was embedded, if it is still there."""
    found: dict[int, Tensor] = {}
    try:
        source: Source = structured(store.about["source"], Source, installed(), {})
        opened = source.open()
        if len(opened) != store.num_rows:
            raise CannotSearch(f"the source has {len(opened):,} images now, and had {store.num_rows:,}")
    except AimcoreError as error:
        logger.warning("no pictures are shown, because the images cannot be read: {}", error)
        return found
    for neighbour in neighbours:
        try:
            sample = opened.read(neighbour.row)
        except UnreadableSample as failure:
            logger.warning("{}", failure)
            continue
        if sample.identifier == neighbour.identifier:
            found[neighbour.row] = sample.image
        else:
            logger.warning(
                "the picture of {} is not shown: the source has {} in its place now. Embed the images again, to "
                "another place", shown(neighbour.identifier), shown(sample.identifier),
            )  # fmt: skip
    return found
