"""What an old module does: it takes its names from where they are now, and warns of each."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def forwarded(old: str, *new: str) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that finds names in the modules ``new``, each with a warning.

    Args:
        old: the module's old name, below ``aimcore``.
        new: where its names are now, below ``aimcore``.
    """

    def find(name: str) -> Any:
        for module in new:
            found = getattr(import_module(f"aimcore.{module}"), name, None)
            if found is not None:
                home = "aimcore" if name in import_module("aimcore").__all__ else f"aimcore.{module}"
                warnings.warn(
                    f"aimcore.{old} has moved, and aimcore 0.3 removes its old name: write from {home} import {name}",
                    DeprecationWarning,
                    stacklevel=2,
                )
                return found
        raise AttributeError(f"module 'aimcore.{old}' has no attribute {name!r}")

    return find
