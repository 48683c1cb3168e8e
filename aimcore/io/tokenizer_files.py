"""Files of fitted image tokenizers: one safetensors file with tensors, and metadata that rebuild the tokenizer.

The metadata have one entry, JSON: the tokenizer's name in its registry, its settings, and the images that it was fitted
on. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from aimcore.contracts.errors import AimcoreError, DataNotFound, LocationError
from aimcore.contracts.messages import shown
from aimcore.io.atomic_files import write_atomically
from aimcore.io.locations import open_location
from aimcore.io.tensor_files import NotSafetensors, TensorHeader, read_header

_KEY = "aimcore tokenizer 1"
"""Name of the entry of the metadata; the number is that of the format."""


class NotATokenizerFile(AimcoreError):
    """A file is not that of a fitted image tokenizer, or is damaged."""


@attrs.frozen(kw_only=True)
class TokenizerRecord:
    """What a file says about its tokenizer, without the tensors."""

    tokenizer: str
    """Name of the tokenizer in the registry ``tokenizers``."""
    settings: Mapping[str, Any]
    """What rebuilds the tokenizer, as plain values."""
    fitted_on: str
    """Where the images came from, as JSON (:attr:`aimcore.FittingData.record`); empty if it is unknown."""


def write_tokenizer(path: Path, record: TokenizerRecord, tensors: Mapping[str, Tensor]) -> None:
    """Write the file of a fitted tokenizer, atomically; the same content gives the same bytes.

    Raises:
        CannotWrite: the system refuses to write it.
    """
    # One entry, because safetensors writes several in any order.
    metadata = {_KEY: json.dumps(attrs.asdict(record), sort_keys=True)}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    write_atomically(path, content)


def tokenizer_record(path: str) -> TokenizerRecord:
    """Return what the file at a path or URL says about its tokenizer; only its header is read.

    Raises:
        DataNotFound: the file cannot be read.
        NotATokenizerFile: it is not the file of a fitted tokenizer.
    """
    try:
        with open_location(path) as file:
            header = read_header(file)
    except LocationError as cause:
        raise DataNotFound(f"cannot read the tokenizer's file: {cause}") from cause
    except (OSError, ImportError) as cause:
        raise DataNotFound(f"cannot read the tokenizer's file {path}: {type(cause).__name__}: {cause}") from cause
    except NotSafetensors as cause:
        raise NotATokenizerFile(f"{path} is not the file of an image tokenizer: {cause}") from cause
    return _record(header, path)


def tokenizer_tensors(content: bytes, path: str) -> dict[str, Tensor]:
    """Return the tensors of a file whose content was read, and whose hash was verified.

    Raises:
        NotATokenizerFile: it is damaged.
    """
    try:
        read_header(io.BytesIO(content))
        return load(content)
    except (NotSafetensors, SafetensorError) as cause:
        raise NotATokenizerFile(f"{path} is not the file of an image tokenizer: {cause}") from cause


def _record(header: TensorHeader, path: str) -> TokenizerRecord:
    if _KEY not in header.metadata:
        raise NotATokenizerFile(
            f"{path} is not the file of an image tokenizer: its metadata have no entry {_KEY!r}. 'aimcore tokenizer "
            "fit' and 'aimcore tokenizer export' write such files"
        )
    try:
        found = json.loads(header.metadata[_KEY])
        record = TokenizerRecord(**found)
    except (ValueError, RecursionError, TypeError) as cause:
        raise NotATokenizerFile(f"{path} is damaged: its metadata are not those of a tokenizer ({cause})") from cause
    texts = (record.tokenizer, record.fitted_on)
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.settings, dict):
        raise NotATokenizerFile(f"{path} is damaged: its metadata are {shown(found)}")
    return record
