"""Whole float32 weights at any ZeRO stage and precision, and the objectives' hook that reads them after an update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from aimcore.contracts.errors import BrokenContract
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.deepspeed_library import load_deepspeed
from aimcore.experiment import Engine, Experiment


def whole(value: Tensor, engine: Engine) -> Tensor:
    """Return a whole copy of a parameter or buffer, with floats as float32. Every rank must call this.

    With precision "bf16" the copy of a trained parameter is its float32 master.
    """
    load_deepspeed()
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    masters_are_apart = engine.zero_stage == 3 or engine.precision == "bf16"
    if masters_are_apart and isinstance(value, nn.Parameter) and value.requires_grad:
        master: Tensor = safe_get_full_fp32_param(value)
        return master.detach()
    with GatheredParameters([value], enabled=hasattr(value, "ds_id")):
        copy = value.detach().clone()
    return copy.float() if copy.is_floating_point() else copy


def call_after_step(module: ObjectiveModule, experiment: Experiment, step: int) -> None:
    """Call the module's :meth:`~aimcore.contracts.objectives.ObjectiveModule.after_step`, if it has one.

    Raises:
        BrokenContract: ``after_step`` changes a parameter.
    """
    if type(module).after_step is ObjectiveModule.after_step:
        return
    with torch.no_grad(), _whole_weights(module, experiment.engine):
        module.after_step(step, experiment.num_steps)


@contextmanager
def _whole_weights(module: ObjectiveModule, engine: Engine) -> Iterator[None]:
    """Make all parameters whole and float32 in the block; restore them afterwards."""
    parameters = dict(module.named_parameters())
    kept = {name: parameter.data for name, parameter in parameters.items()}
    for parameter in parameters.values():
        if engine.zero_stage == 3 or parameter.dtype != torch.float32:
            parameter.data = whole(parameter, engine)
    versions = {name: parameter._version for name, parameter in parameters.items()}
    try:
        yield
        changed = [name for name, parameter in parameters.items() if parameter._version != versions[name]]
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]
    if changed:
        raise BrokenContract(
            f"{type(module).__name__}.after_step changes parameters ({', '.join(changed[:3])}): they are whole and "
            "float32 to be read only. Keep state in buffers: aimcore.modeling.layers.frozen_copy makes a copy whose "
            "weights are buffers, and aimcore.modeling.layers.move_average moves it"
        )


@contextmanager
def buffers_kept_as_they_are(module: nn.Module) -> Iterator[None]:
    """Restore buffers of floats whose dtype the block changes, with their values, so that state is not rounded.

    DeepSpeed converts a whole module to bfloat16, including buffers such as averages.
    """
    kept = {
        (part, name): buffer.clone()
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer.is_floating_point()
    }
    yield
    for (part, name), buffer in kept.items():
        if part.get_buffer(name).dtype != buffer.dtype:
            setattr(part, name, buffer.to(part.get_buffer(name).device))
