"""Pieces of what errors say; text from files is shortened and made safe to print."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

_MOST_COUNTS = 6
_LONGEST = 200
"""Characters of a value that an error shows: enough to know it again."""
_BRACKETS: Mapping[type, Sequence[str]] = {
    list: "[]",
    tuple: "()",
    set: "{}",
    frozenset: ("frozenset({", "})"),
    dict: "{}",
}
_LAYOUT = "\n\t"
MOST_REPORTED = 25
"""Wrong items of one list or mapping that are reported: each takes a while, and a file may hold millions."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`` (did you mean 'raster'?)``, with up to three of ``known`` that resemble ``word``; empty if none does.

    >>> did_you_mean("rastr", ["raster", "spiral"])
    " (did you mean 'raster'?)"
    >>> did_you_mean("zigzag", ["raster", "spiral"])
    ''
    """
    near = get_close_matches(word[:_LONGEST], known, n=3)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def unknown_field(name: object, known: Sequence[str]) -> str:
    """What to say about a field that does not exist."""
    return f"unknown field{did_you_mean(str(name), known)}; there are {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as Python writes it, cut where that is long. The time that takes does not grow with the value."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST:
            return shortened(text)
    return text


def shortened(text: str, longest: int = _LONGEST) -> str:
    """A text, cut where it is longer than ``longest`` characters."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def printable(text: str, *, keep: str = "") -> str:
    r"""A text from outside that is safe to print: other than printable characters are written as escapes, ``\x1b``.

    Among these are line breaks, the control characters that terminals obey, characters that change the direction of
    writing, and halves of surrogate pairs, which no output can encode.

    Args:
        text: for example the name of a file.
        keep: characters that are left as they are, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


def printable_lines(text: str) -> str:
    """As :func:`printable`, but lines and tabs stay."""
    return printable(text, keep=_LAYOUT)


def _pieces(value: object) -> Iterator[str]:
    """The text of a value in pieces, of which only those are made that are asked for."""
    if isinstance(value, list | tuple | set | frozenset | dict) and type(value) in _BRACKETS and value:
        opening, closing = _BRACKETS[type(value)]
        yield opening
        for place, item in enumerate(value):
            yield ", " if place else ""
            yield from _pieces(item)
            if isinstance(value, dict):
                yield ": "
                yield from _pieces(value[item])
        yield f",{closing}" if type(value) is tuple and len(value) == 1 else closing
    elif isinstance(value, str | bytes) and len(value) > _LONGEST:
        yield repr(value[: _LONGEST + 1])
    elif isinstance(value, int) and value.bit_length() > _LONGEST:
        yield f"a whole number of {value.bit_length()} bits"  # Python refuses to write the longest ones
    else:
        yield repr(value)


def unexpected(error: Exception) -> str:
    """An error that nobody expected, and the line that raised it, or that called torch if torch raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "torch" not in Path(frame.filename).parts]
    places = [f" ({frame.filename}, line {frame.lineno})" for frame in (own or frames)[-1:]]
    return f"{type(error).__name__}: {error}{''.join(places)}"


def counted(counts: Iterable[tuple[str, int]]) -> str:
    """Counts by what is counted, the largest first: ``"12 files of other kinds (.txt), 3 broken links"``.

    >>> counted([("broken links", 3), ("files of other kinds (.txt)", 12)])
    '12 files of other kinds (.txt), 3 broken links'
    """
    ordered = sorted(counts, key=lambda item: -item[1])
    named = [f"{count:,} {what}" for what, count in ordered[:_MOST_COUNTS]]
    rest = sum(count for _, count in ordered[_MOST_COUNTS:])
    return ", ".join([*named, f"{rest:,} others"] if rest else named)
