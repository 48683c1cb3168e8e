"""What an old module does: it warns once, and takes its names from where they are now."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def forwarded(old: str, *new: str) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that finds names in the modules ``new``, after a warning that the module has moved.

    Args:
        old: the module's old name, below ``aimcore``.
        new: where its names are now, below ``aimcore``.
    """
    where = " and ".join(f"aimcore.{name}" for name in new[:4]) if len(new) <= 4 else "modules of aimcore.contracts"
    warnings.warn(
        f"aimcore.{old} has moved to {where}, and the old name will be gone in aimcore 0.3. Most names can be imported "
        "from aimcore itself",
        DeprecationWarning,
        stacklevel=3,
    )

    def find(name: str) -> Any:
        for module in new:
            found = getattr(import_module(f"aimcore.{module}"), name, None)
            if found is not None:
                return found
        raise AttributeError(f"module 'aimcore.{old}' has no attribute {name!r}")

    return find
