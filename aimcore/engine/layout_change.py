"""Giving weights and optimiser state to DeepSpeed's engine, whatever its layout is.

A checkpoint may be continued at another ZeRO stage or on another number of processes.

The state of the new run is then the same numbers in another layout: float32 weights, moments and number of updates are
equal bit for bit. Later losses are equal up to the order in which gradients are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aimcore.contracts.objectives import ObjectiveModule
from aimcore.engine.deepspeed_library import load_deepspeed
from aimcore.engine.saved_state import SavedState, TrainedParameter

State = dict[str, Tensor]


def trained_names(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the trained parameters in the order of the optimiser's groups."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@torch.no_grad()
def give_state(engine: Any, module: ObjectiveModule, saved: SavedState, zero_stage: int, rank: int) -> None:
    """Give DeepSpeed's fresh ``engine`` of ``module`` the saved state. Every process calls this."""
    load_deepspeed()
    receiver = _RECEIVERS[zero_stage](engine.optimizer, rank)
    parameters = dict(module.named_parameters())
    trained = {name: each for name, each in parameters.items() if each.requires_grad}
    receiver.begin(saved.trained(next(iter(trained))))
    for name, parameter in trained.items():
        receiver.give(parameter, saved.trained(name))
    for name, parameter in parameters.items():
        if name not in trained:
            receiver.give_frozen(parameter, saved.frozen(name))
    names = set(module.state_dict())
    for name, buffer in module.named_buffers():
        if name in names:
            buffer.copy_(saved.buffer(name))
    receiver.end()


@torch.no_grad()
def give_masters(engine: Any, weights: Mapping[nn.Parameter, Tensor], zero_stage: int, rank: int) -> None:
    """Give DeepSpeed's fresh ``engine`` float32 masters, from which bfloat16 weights have been rounded.

    DeepSpeed makes its masters from the rounded weights. Every process calls this.
    """
    receiver = _RECEIVERS[zero_stage](engine.optimizer, rank)
    for parameter, weight in weights.items():
        receiver.give_master(parameter, weight.flatten())


class _Whole:
    """Stage 0: weights of the module and state of torch's optimizer."""

    def __init__(self, optimizer: Any, rank: int) -> None:
        self.optimizer, self.rank = optimizer, rank

    def begin(self, example: TrainedParameter) -> None:
        """Prepare the optimiser's state; all parameters have state of the same kind as ``example``."""

    def give(self, parameter: nn.Parameter, state: TrainedParameter) -> None:
        """Set a trained parameter and its state."""
        parameter.copy_(state.weight.view_as(parameter))
        moments = {key: value.reshape(parameter.shape).clone() for key, value in state.moments.items()}
        if moments or state.scalars:
            self.optimizer.state[parameter] = moments | _copies(state.scalars)

    def give_master(self, parameter: nn.Parameter, weight: Tensor) -> None:
        """Set the master of a trained parameter, which has none of its own here."""

    def give_frozen(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Set a frozen parameter."""
        parameter.copy_(value)

    def end(self) -> None:
        """Finish, when all parameters are set."""


class _Flat(_Whole):
    """Stages 1 and 2: the optimiser has flat vectors, of which each process has a piece."""

    def begin(self, example: TrainedParameter) -> None:
        """Create the state of the flat vectors, to which parameters are linked."""
        for flat in self._vectors():
            moments = {key: torch.zeros_like(flat) for key in example.moments}
            self.optimizer.optimizer.state[flat] = moments | _copies(example.scalars)
        self._link()

    def _vectors(self) -> Sequence[Tensor]:
        vectors: Sequence[Tensor] = self.optimizer.single_partition_of_fp32_groups
        return vectors

    def _link(self) -> None:
        self.optimizer._lazy_init_hp_params_optimizer_state()

    def give(self, parameter: nn.Parameter, state: TrainedParameter) -> None:
        """Set the weight that the model uses, and this process's part of the master and of the moments."""
        from deepspeed.utils import safe_set_full_optimizer_state

        parameter.copy_(state.weight.view_as(parameter))
        self.give_master(parameter, state.weight)
        for key, value in state.moments.items():
            safe_set_full_optimizer_state(parameter, value, key)

    def give_master(self, parameter: nn.Parameter, weight: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, weight)


class _Partitioned(_Flat):
    """Stage 3: each process has a piece of each parameter."""

    def begin(self, example: TrainedParameter) -> None:
        self.optimizer.checkpoint_event_prologue()
        super().begin(example)

    def _vectors(self) -> Sequence[Tensor]:
        vectors: Sequence[Tensor] = self.optimizer.fp32_partitioned_groups_flat
        return vectors

    def _link(self) -> None:
        """Nothing to do: DeepSpeed finds the state by position."""

    def give(self, parameter: nn.Parameter, state: TrainedParameter) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        self._piece(parameter).copy_(self._own(parameter, state.weight))
        self.give_master(parameter, state.weight)
        for key, value in state.moments.items():
            safe_set_local_optimizer_state(parameter, self._own(parameter, value), key)

    def give_master(self, parameter: nn.Parameter, weight: Tensor) -> None:
        from deepspeed.utils import safe_set_local_fp32_param

        safe_set_local_fp32_param(parameter, self._own(parameter, weight))

    def give_frozen(self, parameter: nn.Parameter, value: Tensor) -> None:
        self._piece(parameter).copy_(self._own(parameter, value.flatten()))

    def end(self) -> None:
        self.optimizer.checkpoint_event_epilogue()

    def _own(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """Return this process's piece of a flat tensor, padded with zeros to the size of all pieces."""
        size = self._piece(parameter).numel()
        piece = whole[self.rank * size : (self.rank + 1) * size]
        return nn.functional.pad(piece, (0, size - piece.numel()))

    @staticmethod
    def _piece(parameter: nn.Parameter) -> Tensor:
        piece: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
        return piece


_RECEIVERS: dict[int, type[_Whole]] = {0: _Whole, 1: _Flat, 2: _Flat, 3: _Partitioned}


def _copies(scalars: Any) -> State:
    return {key: value.clone() for key, value in scalars.items()}
