"""Checks of state that objectives change in training: once per update, and the same under all engine settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aimcore.contracts.objectives import Objective
from aimcore.testing.checks import Check
from aimcore.testing.module_state import (
    differences,
    has_state,
    module_of,
    state_of,
    states_of_two_processes,
    trained_state,
    unsaved_state_of,
)
from aimcore.testing.requirements import explained, require

_WHERE = "update it in after_step(step, num_steps), which is called once per update with whole float32 weights"
_RANKS = 1e-3
"""Ranks compute the same from the same gradients."""
_OTHERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "with two micro-batches per step": {"accumulation_steps": 2},
        "at ZeRO stage 3": {"zero_stage": 3},
        "in bfloat16": {"zero_stage": 1, "precision": "bf16"},
    }
)


def check_its_state_is_in_checkpoints(objective: Objective) -> None:
    """What changes in training are weights and saved buffers: numbers and tensors of its own are lost by resuming."""
    unsaved = unsaved_state_of(objective)
    require(
        not unsaved,
        f"{_some(unsaved)} changes in training and is in no checkpoint, so a resumed run resets it: make it a tensor "
        "with register_buffer; after_step receives the step, and clears what forward passes collect for it",
    )


def check_its_state_moves_once_per_update(objective: Objective) -> None:
    """Micro-batches, ZeRO stage 3, which parts the weights, and bfloat16, which rounds them, move its state alike."""
    if not has_state(objective):
        return
    start, plain = state_of(module_of(objective)), trained_state(objective)
    for where, settings in _OTHERS.items():
        if "accumulation_steps" not in settings or objective.is_separable:
            with explained(f"does not train {where}"):
                found = trained_state(objective, **settings)
            differing = differences(found, plain, start)
            require(
                not differing, f"{where} its state ({', '.join(differing[:3])}) moves otherwise than without: {_WHERE}"
            )


def check_its_state_is_the_same_on_every_process(objective: Objective) -> None:
    """Two processes, half of the images each, have one state, that of one process. Skipped where two cannot start."""
    if not has_state(objective):
        return
    start, (first, second) = state_of(module_of(objective)), states_of_two_processes(objective)
    differing = differences(second, first, start, share=_RANKS, least=_RANKS)
    require(
        not differing,
        f"two processes that train together have different states ({_some(differing)}): add up what depends on "
        "data, in after_step, by torch.distributed.all_reduce",
    )
    if objective.is_separable:
        differing = differences(first, trained_state(objective), start)
        require(
            not differing, f"two processes move its state ({', '.join(differing[:3])}) otherwise than one: {_WHERE}"
        )


CHECKS: tuple[Check, ...] = (
    check_its_state_is_in_checkpoints,
    check_its_state_moves_once_per_update,
    check_its_state_is_the_same_on_every_process,
)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
