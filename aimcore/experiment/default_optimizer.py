"""The default optimizer of an experiment, and its name in aimcore 0.1."""

from __future__ import annotations

import warnings
from typing import Any

from aimcore.contracts.optimizers import Optimizer as Role
from aimcore.registry.plugins import installed

DEFAULT_OPTIMIZER = "adamw"
"""Name of the component in the registry of optimizers. Files of aimcore 0.1 name no optimizer: they mean this one."""


def default_optimizer() -> Role:
    """The installed optimizer called ``"adamw"``, with its defaults.

    Raises:
        UnknownComponent: no plugin supplies it.
    """
    return _default_class()()


def Optimizer(**fields: Any) -> Role:
    """The installed optimizer called ``"adamw"``. Deprecated: import its class from its plugin.

    Raises:
        UnknownComponent: no plugin supplies it.
        InvalidValue: fields are wrong.
    """
    cls = _default_class()
    package = cls.__module__.partition(".")[0]
    warnings.warn(
        f"aimcore.Optimizer is now a plugin: write `from {package} import {cls.__name__}` and {cls.__name__}(...). To "
        "subclass, import aimcore.contracts.optimizers.Optimizer: aimcore.Optimizer will be this class in aimcore 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return cls(**fields)


def _default_class() -> type[Role]:
    found: type[Role] = installed().registry(Role.role).get(DEFAULT_OPTIMIZER)
    return found
