"""Methods that received images before they received batches: plugins that override the old one still work."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from aimcore.contracts.batches import Batch
from aimcore.contracts.images import Images

_ADAPTED = "calls_old_method"


def accept_override(cls: type[Any], old: str, new: str) -> None:
    """Where ``cls`` overrides ``old(images)`` and not ``new(batch)``, let calls of the new method reach it.

    Warns:
        DeprecationWarning: it does; aimcore 0.3 will no longer call the old method.
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
    """What ``new(batch)`` returns for ``images``, all as sample number 0, for callers of the old method.

    Overrides of the old method are skipped: they call this by ``super()``.

    Warns:
        DeprecationWarning: always; aimcore 0.3 will not have the old method.
    """
    warnings.warn(
        f"{old}(images) is called {new}(batch) now, and will be gone in aimcore 0.3", DeprecationWarning, stacklevel=3
    )
    batch = Batch(images=images, sample_numbers_B=torch.zeros(len(images.grids), dtype=torch.int64))
    methods = (vars(cls)[new] for cls in type(value).__mro__ if new in vars(cls))
    return next(method for method in methods if not hasattr(method, _ADAPTED))(value, batch)
