"""Weights that no optimiser trains."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

Part = TypeVar("Part", bound=nn.Module)


def with_frozen_weights(module: Part, *, in_checkpoints: bool = True) -> Part:
    """Convert the parameters of ``module`` to buffers, in place, and return ``module``.

    Buffers are float32 and whole on every rank, at every ZeRO stage and precision. Frozen parameters would be
    partitioned at stage 3 and rounded to bfloat16 with precision "bf16".

    Args:
        module: the module to change in place.
        in_checkpoints: whether state dictionaries, and thus checkpoints and files of weights, contain the buffers.
    """
    buffers: dict[int, Tensor] = {}
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False, remove_duplicate=False)):
            buffer = buffers.setdefault(id(weight), weight.detach().clone())
            delattr(part, name)
            part.register_buffer(name, buffer)
            setattr(part, name, buffer)  # setattr also updates the list of weights that recurrent layers keep
        if not in_checkpoints:
            for name, buffer in list(part.named_buffers(recurse=False, remove_duplicate=False)):
                part.register_buffer(name, buffer, persistent=False)
    return module
