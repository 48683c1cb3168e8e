"""Construction of an experiment's module, with fresh weights that depend only on the experiment."""

from __future__ import annotations

from typing import Any

import torch
from loguru import logger
from torch import nn

from aimcore.contracts import limits
from aimcore.contracts.assembly import assembled
from aimcore.contracts.batches import Batch
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.randomness import keyed_bits, seed_torch
from aimcore.contracts.results import Loss
from aimcore.engine.freezing import freeze
from aimcore.engine.initial_weights import load_weights
from aimcore.experiment import Experiment, Precision


def seed_of(seed: int, purpose: str, number: int = 0) -> int:
    """Return a seed for torch's generators: 63 bits of a hash of (seed, purpose, number)."""
    return int(keyed_bits(seed, purpose, number)) >> 1


def build_module(experiment: Experiment) -> ObjectiveModule:
    """Build trunk and objective with fresh weights: the same on every rank, at every ZeRO stage, every time.

    Each process builds the whole module in float32, which is partitioned later: at stage 3 a process needs memory for
    one full copy of the weights at the start. The states of torch's generators, on the CPU and on this process's GPU,
    are restored.
    """
    # Without a list, torch saves the states of all GPUs of the machine, and warns that there are many.
    own_gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=own_gpus):
        seed_torch(seed_of(experiment.seed, "weights"))
        return assembled(experiment.trunk, experiment.objective)


def module_on_meta(experiment: Experiment) -> ObjectiveModule:
    """Build trunk and objective on the meta device: names and shapes without storage.

    Raises:
        InvalidValue: they have more parameters than any machine holds.
    """
    with torch.device("meta"):
        module = assembled(experiment.trunk, experiment.objective)
    counts = {"trunk": _num_parameters(module.trunk), "objective": _num_parameters(module)}
    counts["objective"] -= counts["trunk"]
    if sum(counts.values()) > limits.PARAMETERS:
        largest = max(counts, key=lambda part: counts[part])
        message = (
            f"trunk and objective together may have at most {limits.PARAMETERS:.0e} parameters, and these have "
            f"{counts['trunk']:.1e} and {counts['objective']:.1e}: make it narrower or shallower"
        )
        raise InvalidValue(f"Experiment {experiment.name!r}", [(largest, message)])
    return module


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def initial_module(experiment: Experiment) -> ObjectiveModule:
    """Return the module with which training begins: :func:`build_module`, then initial weights and frozen parts.

    Raises:
        WeightsNotFound, WeightsMismatch: the initial weights cannot be used.
        InvalidValue: a name in ``frozen`` matches no parameter, or nothing is left to train.
    """
    module = begun_module(experiment)
    freeze(module, experiment.frozen)
    if experiment.branch is None:
        _warn_of_frozen_fresh_weights(experiment, module)
    return module


def _warn_of_frozen_fresh_weights(experiment: Experiment, module: nn.Module) -> None:
    """Log a trunk that is mostly frozen with weights that no file gives, such as LoRA without initial weights.

    Some trunks freeze a few parameters themselves, such as fixed positions: they are no reason for a warning.
    """
    given = experiment.weights_by_path.values()
    trunk = [(name, value) for name, value in module.named_parameters() if name.startswith("trunk.")]
    fresh = [value for name, value in trunk if not any(one.gives(name) for one in given)]
    num_frozen = sum(value.numel() for value in fresh if not value.requires_grad)
    if 2 * num_frozen > sum(value.numel() for _, value in trunk):
        text = (
            "{}: the trunk is frozen with fresh weights, which nothing has trained: give trained ones, initial_weights"
        )
        logger.warning(text, experiment.name)


def begun_module(experiment: Experiment) -> ObjectiveModule:
    """Return :func:`build_module` with the initial weights: the module of an experiment that trains nothing.

    Raises:
        WeightsNotFound, WeightsMismatch: the initial weights cannot be used.
    """
    module = build_module(experiment)
    if experiment.weights_by_path:
        load_weights(experiment, module)
    return module


class InPrecision(nn.Module):
    """Runs an objective module in the experiment's precision; DeepSpeed trains this module.

    "autocast" and "bf16" both run under bfloat16 autocast. With "bf16" the weights are bfloat16 too, and inputs of
    norms are converted to the dtype of their weights, which LayerNorm on CPUs requires. Losses are returned as float32.
    """

    def __init__(self, objective: ObjectiveModule, precision: Precision) -> None:
        super().__init__()
        self.objective = objective
        self.precision = precision
        if precision == "bf16":
            for part in objective.modules():
                if isinstance(part, nn.LayerNorm | nn.RMSNorm) and part.weight is not None:
                    part.register_forward_pre_hook(_as_its_weight)

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """Return the losses of ``batch``, with sums in float32."""
        device = batch.images.patches_BNF.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision != "fp32"):
            losses = self.objective(batch)
        return {name: loss._replace(sum=loss.sum.float()) for name, loss in losses.items()}


def _as_its_weight(norm: nn.LayerNorm | nn.RMSNorm, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].to(norm.weight.dtype), *inputs[1:])
