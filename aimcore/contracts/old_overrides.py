"""Deprecated methods that receive images instead of batches: plugins that override them work until 0.3."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from aimcore.contracts.batches import Batch
from aimcore.contracts.images import Images

_ADAPTED = "calls_old_method"


def accept_override(cls: type[Any], old: str, new: str) -> None:
    """If ``cls`` overrides ``old(images)`` and not ``new(batch)``, let the new method call the old one.

    Warns:
        DeprecationWarning: ``cls`` overrides the old method only; aimcore 0.3 will no longer call it.
    """
    if old not in vars(cls) or new in vars(cls):
        return
    warnings.warn(
        f"{cls.__module__}.{cls.__qualname__} overrides {old}(images), which aimcore 0.3 will no longer call: override "
        f"{new}(batch) instead",
        DeprecationWarning,
        stacklevel=4,
    )

    def adapted(self: Any, batch: Batch) -> Any:
        return getattr(self, old)(batch.images)

    setattr(adapted, _ADAPTED, True)
    setattr(cls, new, adapted)


def call_replacement(value: Any, old: str, new: str, images: Images) -> Any:
    """Call ``new(batch)`` for ``images``, all with sample number 0, on behalf of a caller of the old method.

    Overrides of the old method are skipped, because they may reach this function through ``super()``.

    Warns:
        DeprecationWarning: always; aimcore 0.3 will not have the old method.
    """
    warnings.warn(
        f"{old}(images) is now {new}(batch), and aimcore 0.3 removes the old name", DeprecationWarning, stacklevel=3
    )
    batch = Batch(images=images, sample_numbers_B=torch.zeros(len(images.grids), dtype=torch.int64))
    methods = (vars(cls)[new] for cls in type(value).__mro__ if new in vars(cls))
    return next(method for method in methods if not hasattr(method, _ADAPTED))(value, batch)
