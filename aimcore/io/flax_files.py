"""Weights that flax wrote: nested dictionaries in msgpack, with arrays as extension types.

The encoding is that of ``flax.serialization``; flax itself is not needed. Shape suffixes: none, arrays have any shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown

_ARRAY, _SCALAR = 1, 3
"""Flax's extension types of an array and of a number of numpy."""
_CHUNKED = "__msgpack_chunked_array__"
"""Marks an array of more than a gigabyte, which flax stores in several pieces."""
_MOST_VALUES = 2**40
_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16",
        "float32", "float64",
    )
}  # fmt: skip


class NotFlax(AimcoreError):
    """A file is not flax's msgpack, or is damaged."""


def flax_tensors(content: bytes) -> dict[str, Tensor]:
    """Return all arrays and numbers by their joined names: ``params.trunk.layers_0.norm_1.scale``.

    Raises:
        NotFlax: the content is damaged, or the package msgpack is missing.
    """
    msgpack = _library()
    try:
        tree = msgpack.unpackb(content, ext_hook=_array_of, raw=False, strict_map_key=True)
        tensors = dict(_named(tree, ""))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as cause:
        problem = "it is not flax's msgpack, or is damaged or cut short, and must be fetched again"
        raise NotFlax(f"{problem}: {shown(str(cause))}") from cause
    if not tensors:
        raise NotFlax("it holds no arrays")
    return tensors


def _library() -> Any:
    try:
        return import_module("msgpack")
    except ImportError as cause:
        raise NotFlax("flax's files need the package msgpack: pip install 'aimcore[flax]'") from cause


def _array_of(code: int, data: bytes) -> Tensor:
    """Return the array of an extension type: its shape, the name of its type, and its values."""
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"it has values of the unknown extension type {code}")
    shape, name, values = _library().unpackb(data, raw=True)
    kind = name.decode() if isinstance(name, bytes) else name
    if kind not in _DTYPES or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"it has an array of type {shown(kind)} and shape {shown(shape)}")
    dtype: torch.dtype = _DTYPES[kind]
    number = math.prod(shape)
    if number > _MOST_VALUES or len(values) != number * dtype.itemsize:
        raise ValueError(f"it has an array of shape {shown(shape)} with {len(values)} bytes")
    if number == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(values), dtype=dtype).reshape(shape)


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value)
    elif isinstance(value, Mapping) and value.get(_CHUNKED) is True:
        pieces, shape = _in_order(value["chunks"]), _in_order(value["shape"])
        yield name, torch.cat([piece.flatten() for piece in pieces]).reshape([int(length) for length in shape])
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, f"{name}.{key}" if name else str(key))
    elif value is not None:
        raise ValueError(f"it has a value of type {type(value).__name__}")


def _in_order(values: Any) -> list[Any]:
    """Return the values of a list, or of a dictionary with the keys ``"0"``, ``"1"``, ..., as flax writes tuples."""
    return [values[str(number)] for number in range(len(values))] if isinstance(values, Mapping) else list(values)
