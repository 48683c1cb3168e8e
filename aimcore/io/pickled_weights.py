"""Weights that ``torch.save`` wrote. Only tensors and plain values are read.

A pickle that names anything else is refused. Torch's restricted unpickler calls nothing but the functions that rebuild
tensors.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shown

WRAPPERS = ("model", "state_dict", "module")
"""Entries of a checkpoint that hold the model, beside those of the optimizer and others."""
_MOST_LISTED = 5
_DAMAGED = "it is damaged or cut short, or holds more than tensors and plain values; nothing in it was run"
_WOULD_RUN = (
    "it would run {} when it is unpickled, and nothing was run. Only tensors and plain values are read: save the state "
    "dict alone"
)
_PICKLES_OF_OLD_FORMAT = 4
"""A magic number, a version, facts about the system, and the values; the numbers of the tensors follow."""
_OWN_NAMES = ("torch.", "collections.OrderedDict", "_codecs.encode")
"""Beginnings of the names in files of torch itself."""
_FAULTS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, OverflowError, RecursionError, zipfile.BadZipFile,
)  # fmt: skip
"""What torch raises for a damaged file."""


class NotTensors(AimcoreError):
    """A pickle is damaged, or holds more than tensors and plain values."""


def pickled_tensors(content: Path | IO[bytes]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors by name, and the entries beside the model that were left out.

    A model below one of :data:`WRAPPERS` is unwrapped. Tensors in nested dictionaries get joined names. Those of a
    local file in torch's zip format are mapped into memory.

    Raises:
        NotTensors: the file is damaged, would run code, or holds no tensors.
    """
    _require_whole(content)
    _require_harmless(content)
    loaded = _loaded(content)
    if not isinstance(loaded, Mapping):
        raise NotTensors(f"it holds a value of type {type(loaded).__name__} instead of a dictionary of tensors")
    wrapper = next((name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
    model = loaded if wrapper is None else loaded[wrapper]
    left_out = tuple(str(name) for name in loaded if name != wrapper) if wrapper is not None else ()
    tensors = dict(_named(model, ""))
    if not tensors:
        raise NotTensors("it holds no tensors")
    return tensors, left_out


def _require_whole(content: Path | IO[bytes]) -> None:
    """Refuse the beginning of a zip file, whose table of contents is at its end."""
    with content.open("rb") if isinstance(content, Path) else nullcontext(content) as file:
        is_begun = file.read(2) == b"PK"
    _rewind(content)
    if is_begun and not zipfile.is_zipfile(content):
        raise NotTensors("it is damaged or cut short: the end of its zip file is missing. Fetch it again")
    _rewind(content)


def _require_harmless(content: Path | IO[bytes]) -> None:
    """Refuse a pickle that names functions or classes other than those of tensors, without unpickling it."""
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(content)
    except _FAULTS:
        return  # another format of torch, or damaged: loading says so, with the same restrictions
    finally:
        _rewind(content)
    if unsafe:
        raise NotTensors(_WOULD_RUN.format(", ".join(sorted(unsafe)[:_MOST_LISTED])))


def _loaded(content: Path | IO[bytes]) -> Any:
    try:
        mapped = isinstance(content, Path) and zipfile.is_zipfile(content)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(content, map_location="cpu", weights_only=True, mmap=True if mapped else None)
    except _FAULTS as cause:
        first = next(iter(str(cause).strip().splitlines()), "")
        # Torch recommends to load such a file with its restrictions turned off, which would run the code in it.
        said = f" ({type(cause).__name__}: {shown(first)})" if "weights_only" not in first.lower() else ""
        named = _foreign_names(content)
        raise NotTensors(_WOULD_RUN.format(", ".join(named[:_MOST_LISTED])) if named else _DAMAGED + said) from cause
    finally:
        _rewind(content)


def _foreign_names(content: Path | IO[bytes]) -> list[str]:
    """Return the functions and classes that the pickles in a file, which torch refuses, name. Nothing is unpickled.

    A plain pickle is one; torch's format before zip files begins with four.
    """
    _rewind(content)
    found: dict[str, None] = {}
    try:
        with content.open("rb") if isinstance(content, Path) else nullcontext(content) as file:
            for _ in range(_PICKLES_OF_OLD_FORMAT):
                for name in _globals(file):
                    found[name] = None
    except _FAULTS:
        pass  # damaged, or no further pickle
    return [name for name in found if not name.startswith(_OWN_NAMES)]


def _globals(file: IO[bytes]) -> Iterator[str]:
    """Yield the functions and classes that the next pickle in a file names."""
    texts: list[str] = []
    for code, value, _ in pickletools.genops(file):
        if code.name == "GLOBAL":
            yield str(value).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(value, str):
            texts.append(value)


def _rewind(content: Path | IO[bytes]) -> None:
    if not isinstance(content, Path):
        content.seek(0)


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, f"{name}.{key}" if name else str(key))
