"""Weights as one safetensors file, or as shards with an index, in a folder that nobody reads yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from aimcore.io.atomic_files import CannotWrite, write_atomically
from aimcore.io.run_folder import WEIGHTS_FILE

_METADATA = {"format": "pt"}
"""transformers requires it."""


def shards_of(tensors: Mapping[str, Tensor], most_bytes: int | None) -> list[dict[str, Tensor]]:
    """Divide tensors, in their order, into shards of at most ``most_bytes``; a larger tensor is a shard of its own.

    >>> import torch
    >>> [list(shard) for shard in shards_of({name: torch.zeros(4) for name in "abc"}, 32)]
    [['a', 'b'], ['c']]
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in tensors.items():
        if shards[-1] and most_bytes is not None and size + value.nbytes > most_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def write_weights(folder: Path, tensors: Mapping[str, Tensor], most_bytes: int | None) -> list[str]:
    """Write ``model.safetensors``, or shards with ``model.safetensors.index.json`` as in transformers; return names.

    Args:
        folder: a temporary folder: see :func:`aimcore.io.atomic_files.new_folder`.
        tensors: the tensors, by their names in the files.
        most_bytes: largest size of the values in one file; None writes one file.

    Raises:
        CannotWrite: the system refused.
    """
    shards = shards_of(tensors, most_bytes)
    if len(shards) == 1:
        _save(shards[0], folder / WEIGHTS_FILE)
        return [WEIGHTS_FILE]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _save(shard, folder / name)
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in tensors.values())},
        "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    write_atomically(folder / f"{WEIGHTS_FILE}.index.json", json.dumps(index, indent=2) + "\n")
    return [*names, f"{WEIGHTS_FILE}.index.json"]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path, _METADATA)
    except SafetensorError as error:  # a full disk raises this too
        raise CannotWrite.because(path, error) from error
