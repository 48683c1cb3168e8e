"""Running a module without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from aimcore.experiment import Precision


@contextmanager
def eval_mode(module: nn.Module, precision: Precision = "fp32") -> Iterator[torch.device]:
    """Run a block with ``module`` in evaluation mode and without gradients; restore the mode of every part afterwards.

    Args:
        module: the module that runs inside the context.
        precision: anything but ``"fp32"`` runs under bfloat16 autocast.

    Yields:
        The device of its first parameter (the CPU if it has none), to which batches must be moved.
    """
    with (
        eval_mode_in_current_precision(module) as device,
        torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32"),
    ):
        yield device


@contextmanager
def eval_mode_in_current_precision(module: nn.Module) -> Iterator[torch.device]:
    """Like :func:`eval_mode`, without a change of the autocast settings."""
    modes = [(part, part.training) for part in module.modules()]
    parameter = next(module.parameters(), None)
    module.eval()
    try:
        with torch.no_grad():
            yield torch.device("cpu") if parameter is None else parameter.device
    finally:
        for part, training in modes:
            part.training = training
