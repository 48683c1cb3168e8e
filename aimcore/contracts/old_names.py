"""Names of attributes and fields that aimcore 0.1 had: they still work, with a warning, until 0.3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any


def warn_of_old_name(owner: str, old: str, new: str) -> None:
    """Say that ``owner.old`` is called ``new`` now, to the caller of the function that calls this."""
    warnings.warn(
        f"{owner}.{old} is now {owner}.{new}, and the old name will be gone in aimcore 0.3",
        DeprecationWarning,
        stacklevel=3,
    )


def accept_old_property(cls: type[Any], old: str, new: str) -> None:
    """Where ``cls`` overrides the property ``old`` and not ``new``, let the new one return what the old one returns.

    Warns:
        DeprecationWarning: it does; aimcore 0.3 will no longer read the old property.
    """
    if old not in vars(cls) or new in vars(cls):
        return
    warnings.warn(
        f"{cls.__module__}.{cls.__qualname__} overrides {old}, which aimcore 0.3 will no longer read: call it {new}",
        DeprecationWarning,
        stacklevel=4,
    )
    setattr(cls, new, property(lambda self: getattr(self, old)))


def old_property(old: str, new: str) -> property:
    """A property ``old`` that returns what ``new`` is called now.

    Warns:
        DeprecationWarning: always; aimcore 0.3 will not have the old name.
    """

    def read(self: Any) -> Any:
        warn_of_old_name(type(self).__name__, old, new)
        return getattr(self, new)

    return property(read, doc=f"Old name of :attr:`{new}`, until 0.3.")


def accepts_old_keyword(new_value: Callable[..., Any], owner: str, old: str, new: str) -> Callable[..., Any]:
    """A constructor that also takes the keyword ``old`` for what is called ``new`` now, with a DeprecationWarning."""

    @wraps(new_value)
    def construct(*values: Any, **named: Any) -> Any:
        if old in named:
            warn_of_old_name(owner, old, new)
            named[new] = named.pop(old)
        return new_value(*values, **named)

    return construct
