"""Names of modules and parameters, as settings give them."""

from __future__ import annotations

from fnmatch import fnmatchcase


def is_in(name: str, part: str) -> bool:
    """Whether a parameter called ``name`` is, or lies below, what ``part`` names; ``*`` stands for anything."""
    return fnmatchcase(name, part) or fnmatchcase(name, f"{part}.*")
