"""Headers of safetensors files: they are validated before memory is allocated for the tensors they describe.

The format (https://huggingface.co/docs/safetensors): eight bytes with the length of the header, the header as JSON, and
the values of all entries without gaps. Therefore every deviation from the header, by a byte or more, is damage.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import attrs
import torch

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown

_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000
"""Largest header that the format allows, in bytes."""
_LARGEST_NUMBER = 2**62
_MOST_VALUES = 2**40
_MOST_DIMENSIONS = 64
_LONGEST_NAME = 1000
_METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class NotSafetensors(AimcoreError):
    """A file is not a safetensors file, or is damaged; the message says in what way."""


@attrs.frozen
class TensorHeader:
    """The header of a safetensors file."""

    tensors: Mapping[str, torch.Tensor]
    """Every entry as a tensor without values, on the meta device."""
    metadata: Mapping[str, str]


def read_header(file: IO[bytes]) -> TensorHeader:
    """Read and validate the header of an open file. Nothing after the header is read.

    Raises:
        NotSafetensors: the header is invalid, or does not describe the rest of the file.
    """
    size = _size_of(file)
    length_bytes = file.read(_LENGTH_BYTES)
    length = int.from_bytes(length_bytes, "little")
    if len(length_bytes) < _LENGTH_BYTES or not 2 <= length <= _LARGEST_HEADER:
        raise NotSafetensors("it does not begin with the length of a header")
    if size is not None and _LENGTH_BYTES + length > size:
        raise NotSafetensors(
            f"it has {size} bytes and should begin with a header of {length}: it was cut short. Fetch it again"
        )
    header = _parsed(file.read(length))
    data_bytes = None if size is None else size - _LENGTH_BYTES - length
    metadata = header.pop(_METADATA, {})
    problem = next(_problems(header, metadata, data_bytes), None)
    if problem is not None:
        raise NotSafetensors(problem)
    tensors = {
        name: torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]], device="meta")
        for name, entry in header.items()
    }
    return TensorHeader(tensors, metadata)


def _size_of(file: IO[bytes]) -> int | None:
    """Return the size of the file in bytes; None if the file is not seekable."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    except (OSError, ValueError):
        return None
    return size


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(f"its header is not JSON ({shown(error)})") from error
    if not isinstance(header, dict):
        raise NotSafetensors("its header is not a JSON object")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it has an entry twice")
    return entries


def _problems(header: Mapping[str, Any], metadata: Any, data_bytes: int | None) -> Iterator[str]:
    """Yield problems of a header in order of position."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        yield "its metadata are not texts by name"
    for name, entry in header.items():
        if len(name) > _LONGEST_NAME or not name.isprintable():
            yield f"it has an entry of the name {shown(name)}"
        problem = _problem_with(entry)
        if problem is not None:
            yield f"its entry {shown(name)} {problem}"
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, next_end = entry["data_offsets"]
        if begin != end:
            yield f"the values of its entry {shown(name)} begin at byte {begin} instead of {end}"
        end = next_end
    if data_bytes is not None and end != data_bytes:
        cut = ": it was cut short. Fetch it again" if data_bytes < end else ""
        yield f"its header describes {end} bytes of values, and it has {data_bytes}{cut}"


def _problem_with(entry: Any) -> str | None:
    """Return the problem of a single entry; None if it is valid."""
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        return "must have a dtype, a shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        return f"has a dtype that is not read here; those that are: {', '.join(_DTYPES)}"
    if not _are_counts(shape) or len(shape) > _MOST_DIMENSIONS or math.prod(filter(None, shape)) > _MOST_VALUES:
        return "has a shape that no tensor has"
    if not _are_counts(offsets) or len(offsets) != 2:
        return "must have two data_offsets"
    needed = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        return f"has the shape {shape}, which takes {needed} bytes as {dtype}, and {offsets[1] - offsets[0]} bytes"
    return None


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= _LARGEST_NUMBER for value in values)
