"""Helpers for error messages: suggestions, and values and texts from files, shortened and safe to print."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

_MOST_COUNTS = 6
_LONGEST = 200
"""Characters of a value that an error shows: enough to recognise it."""
_BRACKETS: Mapping[type, Sequence[str]] = {
    list: "[]",
    tuple: "()",
    set: "{}",
    frozenset: ("frozenset({", "})"),
    dict: "{}",
}
_LAYOUT = "\n\t"
MOST_REPORTED = 25
"""Maximal number of reported items of one list or mapping: each takes time, and a file may hold millions."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Suggest up to three of ``known`` that resemble ``word``; empty if none does.

    >>> did_you_mean("rastr", ["raster", "spiral"])
    " (did you mean 'raster'?)"
    >>> did_you_mean("zigzag", ["raster", "spiral"])
    ''
    """
    near = get_close_matches(word[:_LONGEST], known, n=3)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def unknown_field(name: object, known: Sequence[str]) -> str:
    """The message for a field that does not exist."""
    return f"unknown field{did_you_mean(str(name), known)}; there are {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """The ``repr`` of a value, shortened if it is long. Its cost does not grow with the size of the value."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST:
            return shortened(text)
    return text


def shortened(text: str, longest: int = _LONGEST) -> str:
    """A text, cut to ``longest`` characters."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def printable(text: str, *, keep: str = "") -> str:
    r"""Make an untrusted text safe to print: unprintable characters become escapes such as ``\x1b``.

    These include line breaks, terminal control characters, characters that change the direction of writing, and halves
    of surrogate pairs, which no output can encode.

    Args:
        text: for example the name of a file.
        keep: characters that stay unchanged, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


def printable_lines(text: str) -> str:
    """Like :func:`printable`, but line breaks and tabs stay."""
    return printable(text, keep=_LAYOUT)


def _pieces(value: object) -> Iterator[str]:
    """Yield the text of a value in pieces, so that a caller can stop early."""
    if isinstance(value, list | tuple | set | frozenset | dict) and type(value) in _BRACKETS and value:
        opening, closing = _BRACKETS[type(value)]
        yield opening
        for index, item in enumerate(value):
            yield ", " if index else ""
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
    """Describe an unexpected error with the line that raised it, or the line that called torch if torch raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "torch" not in Path(frame.filename).parts]
    lines = [f" ({frame.filename}, line {frame.lineno})" for frame in (own or frames)[-1:]]
    return f"{type(error).__name__}: {error}{''.join(lines)}"


def counted(counts: Iterable[tuple[str, int]]) -> str:
    """Format (name, count) pairs, largest count first; small ones are summed up as "others".

    >>> counted([("broken links", 3), ("files of other kinds (.txt)", 12)])
    '12 files of other kinds (.txt), 3 broken links'
    """
    ordered = sorted(counts, key=lambda item: -item[1])
    named = [f"{count:,} {what}" for what, count in ordered[:_MOST_COUNTS]]
    rest = sum(count for _, count in ordered[_MOST_COUNTS:])
    return ", ".join([*named, f"{rest:,} others"] if rest else named)
