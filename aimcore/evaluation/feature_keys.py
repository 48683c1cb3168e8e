"""Keys of the feature cache: everything that features depend on, as plain values and as one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from aimcore.contracts.component import Component
from aimcore.contracts.errors import AimcoreError
from aimcore.engine.distributed import gather_rows
from aimcore.registry.plugins import installed

Description = Mapping[str, Any]


def key_of(description: Description) -> str:
    """Return a hash of ``description``: 32 hexadecimal digits."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def described(value: Any) -> Any:
    """Convert ``value`` to JSON values: every field of a component, its class, and the version of its distribution."""
    if attrs.has(type(value)):
        fields = {field.name: described(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **_supplier(value), **fields}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _supplier(value: object) -> dict[str, str]:
    if not isinstance(value, Component):
        return {}
    try:
        supplier = installed().registry(value.role).supplier_of(value.name)
    except AimcoreError:  # of no installed plugin: its class is all there is to say
        return {}
    return {"supplied_by": f"{supplier.distribution} {supplier.version}"}


def software() -> dict[str, str]:
    """Return the version of aimcore, whose code extracts the features."""
    return {"aimcore": version("aimcore")}


def weights_digest(module: nn.Module) -> str:
    """Return a digest of all parameters and buffers, the same on every process.

    If parameters are partitioned over processes (ZeRO stage 3), each process digests its part, and the digests are
    combined: the digest of the same weights then depends on the number of processes.

    Args:
        module: the module with the weights.
    """
    own = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        # DeepSpeed stores a process's part of a partitioned parameter in ds_tensor; the parameter itself is empty.
        held: Tensor = getattr(tensor, "ds_tensor", tensor)
        flat = held.detach().reshape(-1).cpu().contiguous()
        own.update(f"{name} {held.dtype} {tuple(tensor.shape)}".encode())
        own.update(flat.view(torch.uint8).numpy().data)
    parts = gather_rows(torch.frombuffer(bytearray(own.digest()), dtype=torch.uint8)[None])
    distinct = torch.unique_consecutive(parts, dim=0)
    return hashlib.sha256(distinct.numpy().tobytes()).hexdigest()
