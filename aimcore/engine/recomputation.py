"""Activation checkpointing: the backward pass recomputes the activations of blocks instead of holding them.

A block keeps its inputs only. When the backward pass reaches it, its forward runs again, with the same random numbers
and the same autocast, so that gradients are those of a run without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.trunks import TrunkModule
from aimcore.experiment import Experiment


def recompute_activations(module: ObjectiveModule, experiment: Experiment) -> None:
    """Let the blocks of ``module`` recompute their activations, if the experiment's engine is set so.

    Raises:
        InvalidValue: the trunk names no blocks.
    """
    if not experiment.engine.checkpoint_activations:
        return
    for problem in recomputation_problems(module, experiment):
        raise InvalidValue(f"Experiment {experiment.name!r}", [("engine.checkpoint_activations", problem)])
    for block in blocks_of(module):
        block.forward = _Recomputed(block.forward)


def recomputation_problems(module: ObjectiveModule, experiment: Experiment) -> Iterable[str]:
    """Yield why activations cannot be recomputed as the engine is set to."""
    if experiment.engine.checkpoint_activations and not tuple(module.trunk.blocks_to_recompute()):
        yield (
            f"trunk {experiment.trunk.name!r} names no blocks, so its activations cannot be recomputed: set it to "
            f"false, or let {type(module.trunk).__name__}.blocks_to_recompute() return them (by default, the modules "
            "of an nn.ModuleList called blocks)"
        )


def blocks_of(module: nn.Module) -> tuple[nn.Module, ...]:
    """Return the blocks in a module: those that trunks name, and elsewhere the modules of lists called ``blocks``.

    A block within another one is left out.
    """
    found: dict[nn.Module, None] = {}
    for part in module.modules():
        if isinstance(part, TrunkModule):
            found.update(dict.fromkeys(part.blocks_to_recompute()))
        elif isinstance(blocks := getattr(part, "blocks", None), nn.ModuleList):
            found.update(dict.fromkeys(blocks))
    inner = {part for block in found for part in block.modules() if part is not block}
    return tuple(block for block in found if block not in inner)


class _Recomputed:
    """The forward of a block, whose activations are recomputed in the backward pass."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        # The early stop is more than speed. Recomputation begins in the backward pass of the block's last module, whose
        # weights are gathered then at stage 3. If its forward ran to the end again, DeepSpeed would release them.
        return checkpoint(self._forward, *args, use_reentrant=False, early_stop=True, **kwargs)
