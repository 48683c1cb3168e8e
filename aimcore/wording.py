"""Pieces of what errors say."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_LONGEST = 200
"""Characters of a value that an error shows: enough to know it again."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`` (did you mean 'raster'?)``, with up to three of ``known`` that resemble ``word``; empty if none does."""
    near = get_close_matches(word, known, n=3)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def unknown_field(name: object, known: Sequence[str]) -> str:
    """What to say about a field that does not exist."""
    return f"unknown field{did_you_mean(str(name), known)}; there are {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as Python writes it, cut where that is long."""
    if type(value) is int and value.bit_length() > _LONGEST:
        return f"a whole number of {value.bit_length()} bits"  # Python refuses to write the longest ones
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
