"""The module of a frozen trunk that reads fastest, made again when the weights change."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import nn

from aimcore.contracts.assembly import ContractCheck
from aimcore.contracts.trunks import TrunkModule


class InferenceCopy:
    """Keeps what :meth:`~aimcore.TrunkModule.for_inference` returns for a module, as long as its weights stay the same.

    Args:
        module: the trunk's module. If parts of it have hooks, the module itself reads, so that its hooks run.
    """

    def __init__(self, module: TrunkModule) -> None:
        self._module = module
        self._state: Hashable = None
        self._copy = module

    def current(self, products: torch.dtype | None = None) -> TrunkModule:
        """Return the module that reads with the current weights, without gradients.

        Changes of weights through ``parameter.data`` are not noticed: torch does not count them.

        Args:
            products: the type of matrix products; by default that of autocast if it is enabled, else of the weights.
        """
        if products is None and torch.is_autocast_enabled("cpu"):
            products = torch.get_autocast_dtype("cpu")
        if any(_is_watched(part) for part in self._module.modules()):
            return self._module
        state = (products, _state_of(self._module))
        if state != self._state:
            self._copy, self._state = self._module.for_inference(products), state
        return self._copy


def _is_watched(part: nn.Module) -> bool:
    """Whether a part has hooks, apart from the check that every trunk of an experiment or an encoder has."""
    return bool(part._forward_pre_hooks) or any(
        not isinstance(hook, ContractCheck) for hook in part._forward_hooks.values()
    )


def _state_of(module: nn.Module) -> Hashable:
    """Return a value that changes when a tensor of the module is replaced or written to."""
    return tuple(
        (name, tensor.data_ptr(), tensor.dtype, tensor.device, 0 if tensor.is_inference() else tensor._version)
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    )
