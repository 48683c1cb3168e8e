"""The images of evaluation sets in memory, and which of them an image is like: by perceptual hash, and by features.

Shape suffixes: B images that are compared, D width; lower-case m counts images of all evaluation sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from aimcore.contracts.errors import AimcoreError, DataNotFound
from aimcore.contracts.messages import printable
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Hashes, Indices, nearest_of
from aimcore.encoders.embedding import Embedding, features_of
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.preprocessing import EncoderTransform
from aimcore.running.filter_parts import Part, PartStore, Progress, parts_of
from aimcore.running.filter_reading import ReadSample, SampleReader, embedded

_AT_ONCE = 2**24
"""Largest number of similarities that are computed at once: 64 MB."""
_DECIMALS = 6
"""Of similarities: of float32, the next one differs with the number of images in a batch."""
_ROW = np.dtype([("index", "i8"), ("readable", "?"), ("hash", "u8"), ("digest", "u8")])


class CannotCompare(AimcoreError):
    """The encoder gives features that are not numbers."""


class ImageEmbedder:
    """Features of images by any encoder, of unit length: the space shared with texts of two towers, or the mean token.

    The encoder is moved to a GPU if there is one.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Choose what is read of the encoder."""
        self.encoder = encoder.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.embedding = Embedding().for_encoder(encoder)
        self.transform: EncoderTransform = encoder.transform

    def features(self, samples: Sequence[ReadSample]) -> Tensor:
        """Return ``float32 [B, D]`` of samples that can be read, of which there is at least one.

        Raises:
            CannotCompare: features are not numbers.
        """
        images = [one.embedded_CHW for one in samples if one.embedded_CHW is not None]
        features_BD = embedded(images, self._of_one_size)
        are_finite_B = features_BD.isfinite().all(1).cpu().numpy()
        if not are_finite_B.all():
            wrong = printable(samples[int(np.flatnonzero(~are_finite_B)[0])].identifier)
            raise CannotCompare(f"{self.encoder.source.name} gives {wrong} features that are not numbers")
        return normalize(features_BD, dim=1)

    def _of_one_size(self, images: list[Tensor]) -> Tensor:
        return features_of(self.encoder, self.transform.normalized(images), self.embedding).float()


@attrs.frozen(eq=False)
class EvaluationImages:
    """The images of all evaluation sets that can be read, m of them."""

    names: Sequence[str]
    """Names of the evaluation sets."""
    set_m: Indices
    """Position of the set of each image in ``names``."""
    index_m: Indices
    """Number of each image in its set."""
    identifiers: Sequence[str]
    hash_m: Hashes
    digest_m: npt.NDArray[np.uint64]
    features_mD: Tensor | None
    """Features of unit length, on the device of the encoder; None without one."""
    counts: Mapping[str, Mapping[str, int]]
    """Of each set ``num_samples`` and ``num_broken``."""

    def nearest_by_hash(
        self, hash_B: Hashes, digest_B: npt.NDArray[np.uint64], most_bits: int
    ) -> tuple[Indices, Indices]:
        """Return the nearest image within ``most_bits`` bits of each, -1 without one, and the number of bits.

        Images of one colour have no hash, so only their pixels are compared.
        """
        like_B, bits_B = np.full(len(hash_B), -1), np.zeros(len(hash_B), dtype=np.int64)
        varied_B, varied_m = np.flatnonzero(hash_B), np.flatnonzero(self.hash_m)
        if len(varied_B) and len(varied_m):
            nearest, bits = nearest_of(hash_B[varied_B], self.hash_m[varied_m])
            is_near = bits <= most_bits
            like_B[varied_B[is_near]] = varied_m[nearest[is_near]]
            bits_B[varied_B[is_near]] = bits[is_near]
        plain_m = np.flatnonzero(self.hash_m == 0)
        for place in np.flatnonzero(hash_B == 0).tolist():
            equal = plain_m[self.digest_m[plain_m] == digest_B[place]]
            if len(equal):
                like_B[place] = equal[0]
        return like_B, bits_B

    def nearest_by_features(self, features_BD: Tensor) -> tuple[Indices, npt.NDArray[np.float64]]:
        """Return the image with the largest cosine similarity to each, the first of several, and the similarity."""
        assert self.features_mD is not None
        best_B = torch.full((len(features_BD),), -2.0, device=features_BD.device)
        nearest_B = torch.zeros(len(features_BD), dtype=torch.int64, device=features_BD.device)
        rows = max(1, _AT_ONCE // len(features_BD))
        for first in range(0, len(self.features_mD), rows):
            similarity, place = (features_BD @ self.features_mD[first : first + rows].T).max(1)
            is_better = similarity > best_B
            best_B = torch.where(is_better, similarity, best_B)
            nearest_B = torch.where(is_better, place + first, nearest_B)
        similarity_B: npt.NDArray[np.float64] = np.round(best_B.double().cpu().numpy(), _DECIMALS)
        return nearest_B.cpu().numpy(), similarity_B


def evaluation_images(
    sets: Mapping[str, OpenSource],
    embedder: ImageEmbedder | None,
    store: PartStore,
    *,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
) -> EvaluationImages:
    """Read all images of the evaluation sets, of which there is at least one, and hash and embed them.

    Args:
        sets: the sets by name, none of them empty.
        embedder: computes their features; None compares hashes only.
        store: where parts of what was computed are stored.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        DataNotFound: no image of a set can be read.
        CannotCompare: features are not numbers.
    """

    def read_part(samples: Sequence[ReadSample]) -> Part:
        rows_n = np.array([(one.index, not one.cause, one.hash, one.digest) for one in samples], dtype=_ROW)
        readable = [one for one in samples if not one.cause]
        features_mD = None
        if embedder is not None and readable:
            features_mD = embedder.features(readable).cpu().numpy()
        causes = {one.index: one.cause for one in samples if one.cause}
        return Part(rows_n, features_mD, [one.identifier for one in samples], causes)

    found = []
    for number, (name, source) in enumerate(sets.items()):
        reader = SampleReader(source, is_hashed=True, embeds=None if embedder is None else embedder.transform)
        part = parts_of(
            store, f"against-{number}", reader, read_part, num_workers=num_workers, progress=progress,
            doing=f"reading {name}",
        )  # fmt: skip
        if not part.rows_n["readable"].any():
            first = printable(next(iter(part.causes.values())))
            raise DataNotFound(f"none of the {len(source):,} images of {name} can be read; the first: {first}")
        found.append(part)
    device = None if embedder is None else next(embedder.encoder.module.parameters()).device
    return _joined(list(sets), found, device)


def _joined(names: Sequence[str], parts: Sequence[Part], device: torch.device | None) -> EvaluationImages:
    readable = [part.rows_n[part.rows_n["readable"]] for part in parts]
    features = [part.features_mD for part in parts if part.features_mD is not None]
    counts = {
        name: {"num_samples": len(part.rows_n), "num_broken": len(part.causes)}
        for name, part in zip(names, parts, strict=True)
    }
    return EvaluationImages(
        names=names,
        set_m=np.repeat(np.arange(len(parts)), [len(rows_n) for rows_n in readable]),
        index_m=np.concatenate([rows_n["index"] for rows_n in readable]),
        identifiers=list(_readable_names(parts)),
        hash_m=np.concatenate([rows_n["hash"] for rows_n in readable]),
        digest_m=np.concatenate([rows_n["digest"] for rows_n in readable]),
        features_mD=torch.from_numpy(np.concatenate(features)).to(device) if features else None,
        counts=counts,
    )


def _readable_names(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        for identifier, is_readable in zip(part.identifiers, part.rows_n["readable"].tolist(), strict=True):
            if is_readable:
                yield identifier
