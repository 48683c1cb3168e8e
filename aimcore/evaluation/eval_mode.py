"""Running a module without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from aimcore.experiment import Precision


@contextmanager
def frozen(module: nn.Module, precision: Precision = "fp32") -> Iterator[torch.device]:
    """Hold ``module`` in evaluation mode, without gradients; afterwards every part is in the mode it was in.

    Args:
        module: what is run inside the context.
        precision: anything but ``"fp32"`` runs under bfloat16 autocast.

    Yields:
        The device its first parameter lives on (the CPU if it has none): where batches must go.
    """
    with held(module) as device, torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"):
        yield device


@contextmanager
def held(module: nn.Module) -> Iterator[torch.device]:
    """As :func:`frozen`, in whatever precision is set around it."""
    modes = [(part, part.training) for part in module.modules()]
    parameter = next(module.parameters(), None)
    module.eval()
    try:
        with torch.no_grad():
            yield torch.device("cpu") if parameter is None else parameter.device
    finally:
        for part, training in modes:
            part.training = training
