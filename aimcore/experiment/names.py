"""Names of experiments: each is a folder inside its study's folder, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from aimcore.component import Problem

_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def name_problems(path: str, name: str) -> Iterable[Problem]:
    """Yield why ``name`` cannot be an experiment's; ``path`` is the field that holds it."""
    if not name or set(name) - _CHARACTERS or not set(name) - {"."}:
        yield Problem(path, f"must be letters, digits, '-', '_' or '.' (and more than dots), got {name!r}")
    elif name == "report":
        yield Problem(path, "'report' is taken: the study's figures go into a folder of that name")
