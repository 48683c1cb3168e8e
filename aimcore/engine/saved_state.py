"""Whole weights and optimiser state from DeepSpeed's files, one parameter at a time, whatever layout they have.

The layout is the ZeRO stage and number of processes of the run that saved them (arXiv:1910.02054, section 5). Stage 0
has whole tensors. Stages 1 and 2 have a flat vector of each parameter group, cut into one piece per process, and tell
where in its piece each parameter is. Stage 3 cuts each parameter into equal pieces, the last one padded, and the vector
of a process is made of its pieces of all parameters. Files are mapped into memory, so that only what is asked for is
read.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aimcore.engine.checkpoint_checks import load_checked, needed_files
from aimcore.engine.manifest import Manifest

_PREFIX = "objective."
"""Of all names in the files: the objective is a part of the module that DeepSpeed trains."""
_RANK = re.compile(r"zero_pp_rank_(\d+)_")


class TrainedParameter(NamedTuple):
    """The whole state of one trained parameter; tensors are flat."""

    weight: Tensor
    """float32, the master copy if there is one."""
    moments: Mapping[str, Tensor]
    """State of the optimiser per number of the parameter, such as Adam's moments."""
    scalars: Mapping[str, Tensor]
    """The rest of its state, such as the number of updates."""


class SavedState(ABC):
    """The state in the files of a checkpoint."""

    def __init__(self, models: Sequence[Mapping[str, Any]]) -> None:
        self.models = models
        """The files of model states, by rank: one, or at stage 3 one per process."""

    def buffer(self, name: str) -> Tensor:
        """Return a buffer, or a frozen parameter that is not partitioned."""
        value: Tensor = self.models[0]["module"][_PREFIX + name]
        return value

    def frozen(self, name: str) -> Tensor:
        """Return a frozen parameter."""
        return self.buffer(name)

    @abstractmethod
    def trained(self, name: str) -> TrainedParameter:
        """Return the state of a trained parameter."""


def saved_state(checkpoint: Path, manifest: Manifest, trained: Sequence[str]) -> SavedState:
    """Return the state in a verified checkpoint.

    Args:
        checkpoint: its folder.
        manifest: its manifest.
        trained: names of the trained parameters, in the order of the optimiser's groups.
    """
    names = sorted(needed_files(manifest), key=_rank_of)
    models = [load_checked(checkpoint / name) for name in names if name.endswith("model_states.pt")]
    shards = [load_checked(checkpoint / name) for name in names if name.endswith("optim_states.pt")]
    optimizers = [shard["optimizer_state_dict"] for shard in shards]
    stage = manifest.saved_by["zero_stage"]
    if stage == 0:
        return _Whole(models, trained)
    return _PiecesOfParameters(models, optimizers) if stage == 3 else _PiecesOfGroups(models, optimizers)


def _rank_of(name: str) -> int:
    found = _RANK.search(name)
    return int(found.group(1)) if found else 0


class _Whole(SavedState):
    """Stage 0: the state dictionaries of the module and of torch's optimizer."""

    def __init__(self, models: Sequence[Mapping[str, Any]], trained: Sequence[str]) -> None:
        super().__init__(models)
        self._number_of = {name: number for number, name in enumerate(trained)}

    def trained(self, name: str) -> TrainedParameter:
        weight = self.buffer(name).flatten()
        state = self.models[0]["optimizer"]["state"].get(self._number_of[name], {})
        moments = {
            key: value.flatten() for key, value in state.items() if value.numel() == weight.numel() and value.dim()
        }
        return TrainedParameter(weight, moments, {key: value for key, value in state.items() if key not in moments})


class _PiecesOfGroups(SavedState):
    """Stages 1 and 2."""

    def __init__(self, models: Sequence[Mapping[str, Any]], optimizers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(models)
        self._optimizers = optimizers

    def trained(self, name: str) -> TrainedParameter:
        pieces, states = [], []
        for group, start, length, optimizer in self._places_of(_PREFIX + name):
            flat = optimizer["single_partition_of_fp32_groups"][group]
            pieces.append(flat[start : start + length])
            states.append(_part(optimizer["base_optimizer_state"]["state"][group], start, length))
        return _joined(pieces, states)

    def _places_of(self, name: str) -> Iterator[tuple[int, int, int, Mapping[str, Any]]]:
        """Yield group, start, length and the optimiser's file of each piece of a parameter, by rank."""
        for optimizer in self._optimizers:
            for group, places in enumerate(optimizer["param_slice_mappings"]):
                if name in places:
                    yield group, places[name].start, places[name].numel, optimizer


class _PiecesOfParameters(SavedState):
    """Stage 3."""

    def __init__(self, models: Sequence[Mapping[str, Any]], optimizers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(models)
        self._optimizers = optimizers
        self._places: dict[str, tuple[int, int, int]] = {}
        """Start and length in the vector of each process, and the number of values without padding."""
        start = 0
        for name, shape in chain.from_iterable(group.items() for group in models[0]["param_shapes"]):
            length = math.ceil(shape.numel() / len(models))
            self._places[name] = start, length, shape.numel()
            start += length

    def frozen(self, name: str) -> Tensor:
        shape = self.models[0]["frozen_param_shapes"][_PREFIX + name]
        pieces = [model["frozen_param_fragments"][_PREFIX + name].flatten() for model in self.models]
        return torch.cat(pieces)[: shape.numel()].reshape(shape)

    def trained(self, name: str) -> TrainedParameter:
        start, length, number = self._places[_PREFIX + name]
        pieces, states = [], []
        for optimizer in self._optimizers:
            for group, first, size in _overlaps(optimizer["fp32_flat_groups"], start, length):
                flat = optimizer["fp32_flat_groups"][group]
                pieces.append(flat[first : first + size])
                states.append(_part(optimizer["optimizer_state_dict"]["state"][group], first, size))
        padded = _joined(pieces, states)
        moments = {key: value[:number] for key, value in padded.moments.items()}
        return TrainedParameter(padded.weight[:number], moments, padded.scalars)


def _overlaps(vectors: Sequence[Tensor], start: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and length of the parts of ``vectors``, laid end to end, that a range covers."""
    offset = 0
    for number, vector in enumerate(vectors):
        first, last = max(start, offset), min(start + length, offset + len(vector))
        if first < last:
            yield number, first - offset, last - first
        offset += len(vector)


def _part(state: Mapping[str, Tensor], start: int, length: int) -> dict[str, Tensor]:
    """Return a range of the state of a flat vector, which may lack the vector's padding; scalars are returned whole."""
    return {key: value[start : start + length] if value.dim() else value for key, value in state.items()}


def _joined(pieces: Sequence[Tensor], states: Sequence[Mapping[str, Tensor]]) -> TrainedParameter:
    first = states[0]
    moments = {key: torch.cat([state[key] for state in states]) for key, value in first.items() if value.dim()}
    scalars = {key: value for key, value in first.items() if not value.dim()}
    return TrainedParameter(torch.cat(list(pieces)), moments, scalars)
