"""Conversion of pickled files of weights to safetensors files, which ``initial_weights`` reads.

    python -m aimcore_trunks.weight_files mae_pretrain_vit_base.pth mae.safetensors --sha256 8cad7c...

Only tensors are read (``torch.load(weights_only=True)``): a file that holds anything that would run code is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from aimcore import AimcoreError
from aimcore.contracts.errors import DataNotFound
from aimcore.io.atomic_files import write_atomically

_BLOCK = 2**22


class NotTensors(AimcoreError):
    """A file of weights is damaged, has another hash, or holds no tensors."""


def convert_weights(path: Path, out: Path, *, sha256: str | None = None) -> list[str]:
    """Write the tensors of the pickled file ``path`` to the safetensors file ``out``.

    Tensors in nested dictionaries get joined names: ``{"model": {"cls_token": ...}}`` becomes ``model.cls_token``.
    Everything else, such as numbers of steps, is left out.

    Args:
        path: a file that ``torch.save`` has written.
        out: the file to write.
        sha256: the hash that ``path`` must have; None accepts any.

    Returns:
        The names of the tensors.

    Raises:
        DataNotFound: the file cannot be read.
        NotTensors: it has another hash, holds more than tensors and plain values, or no tensor at all.
        CannotWrite: ``out`` cannot be written.
    """
    if sha256 is not None and (found := _hash_of(path)) != sha256:
        raise NotTensors(f"{path} has sha256 {found}, not {sha256}: it was changed, or is another file")
    tensors = dict(_tensors(_loaded(path), ""))
    if not tensors:
        raise NotTensors(f"{path} holds no tensors")
    write_atomically(out, save(tensors))
    return list(tensors)


def _hash_of(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
    except OSError as cause:
        raise DataNotFound(f"cannot read {path}: {cause}") from cause
    return found.hexdigest()


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as cause:
        raise DataNotFound(f"cannot read {path}: {cause}") from cause
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as cause:
        first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise NotTensors(
            f"{path} is not a file of tensors, or holds more than tensors and plain values: {first}"
        ) from cause


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        # A copy: entries of a safetensors file share no memory.
        yield name, value.detach().clone().contiguous()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))


def main(words: list[str] | None = None) -> int:
    """Convert a file; return the exit status."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m aimcore_trunks.weight_files", description=description)
    parser.add_argument("file", type=Path, help="a pickled file of weights")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    parser.add_argument("--sha256", help="the hash that the pickled file must have")
    options = parser.parse_args(words)
    try:
        names = convert_weights(options.file, options.out, sha256=options.sha256)
    except AimcoreError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {len(names)} tensors, {', '.join(names[:3])}, ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
