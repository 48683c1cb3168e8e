"""Parameter groups of the optimizer: weight decay and learning-rate multipliers of each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from aimcore.contracts.errors import BrokenContract, InvalidValue
from aimcore.contracts.messages import shown
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.optimizers import Optimizer, ParameterGroup
from aimcore.experiment.parameter_names import is_in

_SMALLEST_RATE = 1e-30
"""Smallest peak rate that changes weights; only multipliers can lead to smaller ones."""


def parameter_groups(module: nn.Module, optimizer: Optimizer) -> list[ParameterGroup]:
    """Group the trainable parameters by decay and peak rate; groups with decay come first.

    Decay applies to matrices only: not to biases, norms, positions and other learned vectors (arXiv:2401.08541,
    appendix; arXiv:2411.14402, Table A1). A parameter decays when it has two dimensions or more and the module that
    owns it does not list its local name in the attribute ``no_weight_decay: frozenset[str]`` (a table of learned
    positions does). Rates are those of :func:`rate_multipliers`. Frozen parameters are left out; a shared one is in the
    group of its first name.

    Raises:
        BrokenContract, InvalidValue: as for :func:`rate_multipliers`.
    """
    multipliers = rate_multipliers(module, optimizer)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((_decays(module, name, parameter), multipliers[name]), []).append(parameter)
    return [
        ParameterGroup(tuple(groups[decays, multiplier]), decays, optimizer.peak_lr * multiplier)
        for decays, multiplier in sorted(groups, key=lambda kind: not kind[0])
    ]


def _decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    owner, _, local = name.rpartition(".")
    # A parameter that ZeRO stage 3 has partitioned is empty, and keeps its true shape aside.
    is_matrix = len(getattr(parameter, "ds_shape", parameter.shape)) >= 2
    return is_matrix and local not in getattr(module.get_submodule(owner), "no_weight_decay", frozenset())


def rate_multipliers(module: nn.Module, optimizer: Optimizer) -> dict[str, float]:
    """Return the learning-rate multiplier of each parameter, by name.

    It is the product of the modules' attributes ``rate_multipliers: Mapping[str, float]``, whose keys name parameters
    or modules below the module that has the attribute (``*`` matches any text), and of layer-wise decay: ``layer_decay
    ** (depth + 1 - layer)`` for parameters of the trunk (BEiT, arXiv:2106.08254; MAE, arXiv:2111.06377).

    Raises:
        BrokenContract: a module's multipliers match nothing, or are not positive numbers; or a layer is out of range.
        InvalidValue: the trunk does not define the layer of a parameter, or a rate is too small to change a weight.
    """
    # With all names of a shared parameter, because a module may mean any of them.
    found = {name: 1.0 for name, _ in module.named_parameters(remove_duplicate=False)}
    for part, multiplier in _declared(module, found):
        for name in found:
            if is_in(name, part):
                found[name] *= multiplier
    if optimizer.layer_decay != 1 and isinstance(module, ObjectiveModule):
        for name, _ in module.trunk.named_parameters(remove_duplicate=False):
            found[f"trunk.{name}"] *= optimizer.layer_decay ** _layers_above(module, name)
    for name, multiplier in found.items():
        if multiplier != 1 and multiplier * optimizer.peak_lr < _SMALLEST_RATE:
            problem = f"gives {name} a peak rate of {multiplier * optimizer.peak_lr:g}, which changes nothing: raise it"
            raise InvalidValue("Experiment", [("optimizer.layer_decay", problem)])
    return found


def _declared(module: nn.Module, names: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the multipliers that modules declare: a pattern for the parameters' full names, and the multiplier."""
    for prefix, owner in module.named_modules():
        declared: Any = getattr(owner, "rate_multipliers", {})
        said = f"{type(owner).__name__}.rate_multipliers"
        if not isinstance(declared, Mapping):
            raise BrokenContract(f"{said} must map names to numbers, got {shown(declared)}")
        for part, multiplier in declared.items():
            if not isinstance(multiplier, int | float) or not 0 < multiplier < math.inf:
                raise BrokenContract(
                    f"{said} must be positive numbers, got {shown(multiplier)} for {part!r}: to train nothing of it, "
                    "name it in Experiment.frozen"
                )
            whole = f"{prefix}.{part}" if prefix else str(part)
            if not any(is_in(name, whole) for name in names):
                raise BrokenContract(f"{said} names {part!r}, which is no parameter or module of it")
            yield whole, float(multiplier)


def _layers_above(module: ObjectiveModule, name: str) -> int:
    """Return the number of layers above the layer of a parameter of the trunk."""
    trunk = module.trunk
    try:
        layer: Any = trunk.layer_of(name)
    except NotImplementedError as error:
        problem = f"must be 1: {error}"
        raise InvalidValue("Experiment", [("optimizer.layer_decay", problem)]) from None
    if type(layer) is not int or not 0 <= layer <= trunk.depth + 1:
        raise BrokenContract(
            f"{type(trunk).__name__}.layer_of({name!r}) must be 0 for embeddings to {trunk.depth + 1} (depth + 1) for "
            f"what comes after the blocks, got {shown(layer)}"
        )
    return trunk.depth + 1 - layer


def torch_optimizer(module: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    """Build the torch optimizer for the parameters of ``module``; each of its groups keeps its ``peak_lr``.

    Raises:
        BrokenContract: ``build`` does not return a torch optimizer, or its groups are not the given ones or parts of
            them.
        InvalidValue: rates are invalid, see :func:`rate_multipliers`.
    """
    groups = parameter_groups(module, optimizer)
    built: Any = optimizer.build(groups)
    said = f"optimizer {optimizer.name!r}: build(groups)"
    if not isinstance(built, torch.optim.Optimizer):
        raise BrokenContract(f"{said} must give a torch.optim.Optimizer, got {shown(built)}")
    number_of = {id(parameter): number for number, group in enumerate(groups) for parameter in group.parameters}
    for own in built.param_groups:
        numbers = {number_of.get(id(parameter)) for parameter in own["params"]}
        number = numbers.pop() if len(numbers) == 1 else None
        if number is None:
            raise BrokenContract(f"{said} must not mix groups: each of its groups holds parameters of one of `groups`")
        own["peak_lr"] = groups[number].peak_lr
    num_given = sum(len(own["params"]) for own in built.param_groups)
    if num_given != len(number_of):
        raise BrokenContract(f"{said} must train all {len(number_of)} parameters of the groups, got {num_given}")
    return built
