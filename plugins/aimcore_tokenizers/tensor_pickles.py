"""Reads tensors out of a pickled torch module without building any object that the pickle names.

The pickle machine of the standard library looks every name up by ``find_class``. Here it receives inert stand-ins: they
record the state that they are given, and call nothing. Only tensors are rebuilt, from bytes and bounds that are
checked. So a file can neither run code nor import a module.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from aimcore.contracts.messages import shown
from aimcore_tokenizers.files import TokenizerFileError

_DTYPES = MappingProxyType(
    {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64}
)
_DEEPEST = 50
_FAULTS = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
    OverflowError, MemoryError, NotImplementedError, zipfile.BadZipFile,
)  # fmt: skip
"""What the machine raises for a damaged pickle."""


class _Inert:
    """Stands in for an object of any class: it keeps its state as data."""

    state: Any = MappingProxyType({})

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore an item of a mapping."""

    def append(self, _: object) -> None:
        """Ignore an item of a list."""

    def extend(self, _: object) -> None:
        """Ignore items of a list."""


class _Rebuilds(ABC):
    """A function without attributes that a pickle could set."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, *values: Any) -> Any: ...

    def __setstate__(self, state: object) -> None:
        raise ValueError("a pickle may not set the state of a function")


class _RebuildsTensor(_Rebuilds):
    __slots__ = ()

    def __call__(self, *values: Any) -> Tensor:
        """Return a contiguous copy of a part of a storage, within its bounds."""
        storage_P, offset, size, stride, *_ = values
        if not isinstance(storage_P, Tensor) or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise ValueError("a tensor is described by other values than whole numbers")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        number = math.prod(size)
        if number > len(storage_P) or (number and last >= len(storage_P)):
            raise ValueError(f"a tensor of shape {list(size)} lies outside of its storage of {len(storage_P)} values")
        return storage_P.as_strided(size, stride, offset).clone()


class _RebuildsParameter(_Rebuilds):
    __slots__ = ()

    def __call__(self, *values: Any) -> Any:
        """Return the tensor of a parameter."""
        return values[0]


class _Reader(pickle.Unpickler):
    def __init__(self, content: bytes, storage: Callable[[Any], Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildsTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildsParameter()
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _Inert

    def persistent_load(self, pid: Any) -> Tensor:
        return self._storage(pid)


def tensors_in_pickle(content: bytes, path: str) -> dict[str, Tensor]:
    """Return the parameters and buffers by name of the module that ``torch.save`` wrote, or of a dictionary of tensors.

    Args:
        content: the file, in torch's zip format.
        path: its name, for messages.

    Raises:
        TokenizerFileError: it is not such a file, or holds no tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.file_size > entry.compress_size for entry in archive.infolist()):
                raise ValueError("it is compressed, and torch compresses nothing")
            (name,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            folder = name.rpartition("/")[0]

            def storage(pid: Any) -> Tensor:
                return _storage(archive, folder, pid)

            found: dict[str, Tensor] = {}
            _collect(_Reader(archive.read(name), storage).load(), "", found, 0)
    except _FAULTS as cause:
        raise TokenizerFileError(
            f"{path} is not a module that torch.save wrote in its zip format: {type(cause).__name__}: {shown(cause)}"
        ) from cause
    if not found:
        raise TokenizerFileError(f"{path} holds no tensors")
    return found


def _storage(archive: zipfile.ZipFile, folder: str, pid: Any) -> Tensor:
    kind, dtype, key, _, number = pid
    if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not key.isalnum():
        raise ValueError(f"unknown storage {shown(pid)}")
    values_P = torch.frombuffer(bytearray(archive.read(f"{folder}/data/{key}")), dtype=dtype)
    if len(values_P) != number:
        raise ValueError(f"storage {key} has {len(values_P)} values instead of {shown(number)}")
    return values_P


def _collect(node: Any, prefix: str, found: dict[str, Tensor], depth: int) -> None:
    """Add the tensors of a module and the modules in it, or of a dictionary."""
    if depth > _DEEPEST:
        raise ValueError(f"modules are nested more than {_DEEPEST} deep")
    state = node.state if isinstance(node, _Inert) else node
    if not isinstance(state, Mapping):
        return
    is_module = isinstance(node, _Inert)
    named = [state.get("_parameters"), state.get("_buffers")] if is_module else [state]
    for values in named:
        items = values.items() if isinstance(values, Mapping) else ()
        found |= {f"{prefix}{name}": value for name, value in items if isinstance(value, Tensor)}
    parts = state.get("_modules") if is_module else None
    for name, part in parts.items() if isinstance(parts, Mapping) else ():
        _collect(part, f"{prefix}{name}.", found, depth + 1)
