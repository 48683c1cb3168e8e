"""The checks, one module per role. Each is a function of a component that raises AssertionError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], None]
"""A check takes a component and raises an AssertionError, whose message says what is wrong and what to do."""

__all__ = ["Check"]
