"""Deprecated names of attributes and fields of aimcore 0.1: they work, with a warning, until 0.3."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

_RENAMED: Mapping[str, str] = {"hide": "mask"}
"""Old names of capabilities, and what they are called now."""


def warn_of_old_name(owner: str, old: str, new: str) -> None:
    """Warn the caller of the calling function that ``owner.old`` is now called ``new``."""
    warnings.warn(
        f"{owner}.{old} is now {owner}.{new}, and aimcore 0.3 removes the old name",
        DeprecationWarning,
        stacklevel=3,
    )


def accept_old_property(cls: type[Any], old: str, new: str) -> None:
    """If ``cls`` overrides the property ``old`` and not ``new``, let the new property return the value of the old.

    Warns:
        DeprecationWarning: ``cls`` overrides the old property only; aimcore 0.3 will no longer read it.
    """
    if old not in vars(cls) or new in vars(cls):
        return
    warnings.warn(
        f"{cls.__module__}.{cls.__qualname__} overrides {old}, which aimcore 0.3 will no longer read: call it {new}",
        DeprecationWarning,
        stacklevel=4,
    )
    setattr(cls, new, property(lambda self: frozenset(_RENAMED.get(name, name) for name in getattr(self, old))))


def old_property(old: str, new: str) -> property:
    """Return a property for the deprecated name ``old`` of ``new``.

    Warns:
        DeprecationWarning: on each read; aimcore 0.3 will not have the old name.
    """

    def read(self: Any) -> Any:
        warn_of_old_name(type(self).__name__, old, new)
        return getattr(self, new)

    return property(read, doc=f"Old name of :attr:`{new}`, until 0.3.")


def accepts_old_keyword(new_value: Callable[..., Any], owner: str, old: str, new: str) -> Callable[..., Any]:
    """Wrap a constructor so that it accepts the deprecated keyword ``old`` for ``new``, with a DeprecationWarning."""

    @wraps(new_value)
    def construct(*values: Any, **named: Any) -> Any:
        if old in named:
            warn_of_old_name(owner, old, new)
            named[new] = named.pop(old)
        return new_value(*values, **named)

    return construct
