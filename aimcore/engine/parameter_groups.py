"""Which parameters decay, and by how much."""

from __future__ import annotations

from typing import Any

from torch import nn

from aimcore.experiment import Optimizer


def parameter_groups(module: nn.Module, optimizer: Optimizer) -> list[dict[str, Any]]:
    """Groups of the trainable parameters for torch's AdamW: decay on matrices only.

    None on biases, norms, positions and other learned vectors (arXiv:2401.08541, appendix; arXiv:2411.14402, Table
    A1). A parameter decays when it has two dimensions or more and the module that owns it does not list its local name
    in the attribute ``no_weight_decay: frozenset[str]`` (a table of learned positions does). Frozen parameters are
    left out; shared ones count once.

    Each group keeps its ``peak_lr``. torch multiplies a weight with 1 - rate x ``weight_decay``, so decoupled decay is
    a group whose ``weight_decay`` is divided by the group's peak rate.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for owner in module.modules():
        spared: frozenset[str] = getattr(owner, "no_weight_decay", frozenset())
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad:
                # A parameter that ZeRO stage 3 has partitioned is empty, and keeps its true shape aside.
                is_matrix = len(getattr(parameter, "ds_shape", parameter.shape)) >= 2
                (decaying if is_matrix and name not in spared else others).append(parameter)
    decaying, others = _once(decaying), _once(others)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": _coupled_decay(optimizer), "name": "decaying"},
        {"params": others, "weight_decay": 0.0, "name": "not decaying"},
    ]
    return [{**group, "peak_lr": optimizer.peak_lr} for group in groups if group["params"]]


def _coupled_decay(optimizer: Optimizer) -> float:
    """The decay that torch's AdamW, which multiplies it with the rate, has to be given."""
    decay = optimizer.weight_decay
    return decay / optimizer.peak_lr if optimizer.decay == "decoupled" else decay


def _once(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())
