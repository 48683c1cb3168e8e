"""Codes of images that were computed once, in a zarr group, found by the pixels that they belong to.

An image is found by the digest of its normalised patches. So codes of another crop, size or normalisation are never
used by mistake: they are not found. Images with equal pixels share one entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import AimcoreError, DataNotFound
from aimcore.io.atomic_files import writing
from aimcore.io.locations import zarr_location

_FORMAT = "aimcore codes 1"
_DIGEST_BYTES = 16
_CHUNK_ROWS = 4096
Array = npt.NDArray[Any]


class WrongCodes(AimcoreError):
    """Stored codes are missing, damaged, or those of another tokenizer or of other images."""


def keys_of(patches_BNF: npt.NDArray[np.float32]) -> list[bytes]:
    """Return the digest of each image's normalised patches."""
    images = np.ascontiguousarray(patches_BNF, dtype="<f4")
    return [hashlib.blake2b(image.tobytes(), digest_size=_DIGEST_BYTES).digest() for image in images]


def write_codes(url: str, sha256: str, entries: Iterable[tuple[list[bytes], Array]]) -> int:
    """Write codes of images to a new zarr group, and return the number of different images.

    Args:
        url: path or URL of the group; an existing one is replaced.
        sha256: hash of the tokenizer's file.
        entries: keys of images, with their codes ``[n, N]``.

    Raises:
        CannotWrite: the system refuses.
    """
    import zarr  # here, because it takes a while to load

    found = {key: row_N for keys, codes_BN in entries for key, row_N in zip(keys, codes_BN, strict=True)}
    codes = np.stack([*found.values()])
    codes = codes.astype("uint16" if codes.max() < 2**16 else "uint32")
    keys = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), _DIGEST_BYTES)
    with writing(url):
        group = zarr.open_group(zarr_location(url), mode="w")
        for name, values in (("keys", keys), ("codes", codes)):
            rows = min(_CHUNK_ROWS, len(values))
            group.create_array(name, data=values, chunks=(rows, values.shape[1]))
        # Last, so that a group that was not completed has no digest.
        group.attrs.update({"format": _FORMAT, "tokenizer": sha256, "digest": _digest(keys, codes)})
    return len(found)


class StoredCodes:
    """The codes of a group, in memory."""

    def __init__(self, url: str, sha256: str) -> None:
        """Open the group, whose codes are read when they are first asked for.

        Raises:
            DataNotFound: there is no such group.
            WrongCodes: it is not complete, or its codes are those of another tokenizer.
        """
        self.url = url
        attributes = self._opened().attrs
        if attributes.get("format") != _FORMAT or "digest" not in attributes:
            raise WrongCodes(f"{url} has no complete codes: write them with 'aimcore tokenizer encode'")
        if attributes.get("tokenizer") != sha256:
            raise WrongCodes(
                f"{url} has codes of the tokenizer with SHA-256 {attributes.get('tokenizer')}, and {sha256} is "
                "recorded: encode the images again with 'aimcore tokenizer encode'"
            )
        self._digest = attributes["digest"]
        self._rows: dict[bytes, int] = {}
        self._codes: Array | None = None

    def of(self, patches_BNF: npt.NDArray[np.float32], names: Iterable[str]) -> Array:
        """Return the codes ``[B, N]`` int64 of images with these normalised patches.

        Raises:
            WrongCodes: the codes of an image are not stored.
        """
        codes = self._read()
        rows = []
        for key, name in zip(keys_of(patches_BNF), names, strict=True):
            if key not in self._rows:
                raise WrongCodes(
                    f"{self.url} has no codes of image {name} as it was rendered here. Codes can be stored only where "
                    "the transform is deterministic: same source, size, mean and standard deviation, and an "
                    "augmentation that draws nothing. Encode the images again, or leave out 'stored'"
                )
            rows.append(self._rows[key])
        found: Array = codes[rows].astype(np.int64)
        return found

    def _read(self) -> Array:
        if self._codes is None:
            group = self._opened()
            keys, codes = np.asarray(group["keys"][:]), np.asarray(group["codes"][:])
            if _digest(keys, codes) != self._digest:
                raise WrongCodes(f"{self.url} is damaged: its codes do not have the recorded digest; encode them again")
            self._rows = {key.tobytes(): row for row, key in enumerate(keys)}
            self._codes = codes
        return self._codes

    def _opened(self) -> Any:
        import zarr

        try:
            return zarr.open_group(zarr_location(self.url), mode="r")
        except (OSError, ValueError, KeyError) as cause:
            raise DataNotFound(f"cannot read the stored codes {self.url}: {type(cause).__name__}: {cause}") from cause


def _digest(keys: Array, codes: Array) -> str:
    return hashlib.blake2b(keys.tobytes() + codes.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()
