"""Patterns for names of modules and parameters in settings."""

from __future__ import annotations

from fnmatch import fnmatchcase


def is_in(name: str, part: str) -> bool:
    """Whether parameter ``name`` is, or is below, the module or parameter ``part``; ``*`` matches any text."""
    return fnmatchcase(name, part) or fnmatchcase(name, f"{part}.*")
