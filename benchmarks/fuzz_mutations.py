"""Ways to damage a file: bytes, values in JSON or YAML, and words of Python."""

from __future__ import annotations

import copy
import io
import math
import random
import struct
import tokenize
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

EXTREME_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 0.0, -0.5, 1e308, math.nan, math.inf, -math.inf,
    "", "x", "3", "\x1b[31m", "\ud800", "../../x", "reference://x", "a" * 3000, "\u2028", [], [None], [[]], {},
    {"": 1}, {"name": "raster"}, {"name": None}, [1] * 200,
)  # fmt: skip
"""Values that no field, or hardly any, can mean."""
_WORDS = (
    "None", "-1", "10**30", "''", "study", "[]", "{}", "(", ")", ":", "\n", "import nothing_of_this_name", "lambda",
    "1/0", "*",
)  # fmt: skip


class Mutation(NamedTuple):
    """A damaged file, and how it was damaged."""

    content: bytes
    how: str


def flipped(content: bytes, draw: random.Random) -> Mutation:
    """One bit is the other."""
    changed, place = bytearray(content), draw.randrange(len(content))
    changed[place] ^= 1 << draw.randrange(8)
    return Mutation(bytes(changed), f"bit flipped in byte {place}")


def cut(content: bytes, draw: random.Random) -> Mutation:
    """The end is missing."""
    length = draw.randrange(len(content))
    return Mutation(content[:length], f"cut to {length} bytes")


def zeroed(content: bytes, draw: random.Random) -> Mutation:
    """A block of 512 bytes, or a part of one, is zeros, as after a power cut."""
    start, length = draw.randrange(len(content)), draw.choice((1, 16, 512, 1024))
    if draw.random() < 0.5:
        start -= start % 512
    end = min(start + length, len(content))
    return Mutation(content[:start] + bytes(end - start) + content[end:], f"bytes {start} to {end} zeroed")


def scattered(content: bytes, draw: random.Random) -> Mutation:
    """Some bytes are others."""
    changed, number = bytearray(content), draw.randint(2, 16)
    for place in draw.choices(range(len(content)), k=number):
        changed[place] = draw.randrange(256)
    return Mutation(bytes(changed), f"{number} bytes drawn anew")


def extreme_number(content: bytes, draw: random.Random) -> Mutation:
    """Two or four bytes, mostly of the header, hold a smallest or largest number."""
    size, order = draw.choice((2, 4)), draw.choice(("<", ">"))
    reach = min(len(content), 256) if draw.random() < 0.8 else len(content)
    place, number = draw.randrange(max(1, reach - size)), draw.choice(EXTREME_NUMBERS)
    packed = struct.pack(f"{order}{'H' if size == 2 else 'I'}", number & (2 ** (8 * size) - 1))
    return Mutation(content[:place] + packed + content[place + size :], f"{number:#x} at byte {place}")


def moved(content: bytes, draw: random.Random) -> Mutation:
    """A range is deleted, repeated, or put elsewhere."""
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.choice((1, 4, 64, 1024)))
    piece, rest = content[start:end], content[:start] + content[end:]
    how = draw.choice(("deleted", "repeated", "moved"))
    if how == "deleted":
        return Mutation(rest, f"bytes {start} to {end} deleted")
    place = draw.randrange(len(rest) + 1) if how == "moved" else end
    whole = rest if how == "moved" else content
    return Mutation(whole[:place] + piece + whole[place:], f"bytes {start} to {end} {how}")


BYTES = (flipped, cut, zeroed, scattered, extreme_number, moved)
DAMAGE = (flipped, flipped, cut, zeroed)
"""What disks and interrupted copies do."""


def bytes_mutated(content: bytes, draw: random.Random, ways: tuple[Callable[..., Mutation], ...] = BYTES) -> Mutation:
    """``content`` (not empty) with one of the ``ways`` of damage; now and then with a second."""
    mutation = draw.choice(ways)(content, draw)
    if draw.random() < 0.1 and mutation.content:
        again = draw.choice(ways)(mutation.content, draw)
        return Mutation(again.content, f"{mutation.how}; {again.how}")
    return mutation


def with_right_checksums(png: bytes) -> bytes:
    """A damaged PNG whose chunks have checksums that fit, so that the damage gets past the first look."""
    fixed, place = bytearray(png[:8]), 8
    while place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        end = place + 8 + length
        if end + 4 > len(png):
            break
        fixed += png[place:end] + struct.pack(">I", zlib.crc32(png[place + 4 : end]))
        place = end + 4
    return bytes(fixed + png[place:])


def values_mutated(document: Any, draw: random.Random) -> tuple[Any, str]:
    """A copy of plain values in which one is hostile, gone, renamed, or another one's."""
    changed = copy.deepcopy(document)
    holder, key = draw.choice(list(_places(changed)))
    how = draw.choice(("hostile", "hostile", "hostile", "gone", "renamed", "another's"))
    if how == "gone":
        del holder[key]
    elif how == "renamed" and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif how == "another's":
        other, its_key = draw.choice(list(_places(document)))
        holder[key] = copy.deepcopy(other[its_key])
    else:
        holder[key] = draw.choice(HOSTILE_VALUES)
    return changed, f"{key!r}: {how}"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def python_mutated(source: str, draw: random.Random) -> tuple[str, str]:
    """Python in which one or two words are gone, repeated, strange, or, mostly, others of their kind."""
    words = [(word.type, word.string) for word in tokenize.generate_tokens(io.StringIO(source).readline)]
    hows = []
    for _ in range(draw.choice((1, 1, 2))):
        place = draw.randrange(len(words) - 1)
        how = draw.choice(("gone", "repeated", "strange", "another", "another", "another", "another"))
        hows.append(f"word {place} ({words[place][1]!r}) {how}")
        if how == "gone":
            del words[place]
        elif how == "repeated":
            words.insert(place, words[place])
        elif how == "strange":
            words[place] = (tokenize.NAME, draw.choice(_WORDS))
        else:
            words[place] = draw.choice([word for word in words if word[0] == words[place][0]])
    return _untokenized(words), "; ".join(hows)


def _untokenized(words: list[tuple[int, str]]) -> str:
    """Text of the words, indented as INDENT and DEDENT say, whether they fit or not."""
    lines, line, depth = [], "", 0
    for kind, text in words:
        if kind in (tokenize.NEWLINE, tokenize.NL):
            lines.append("    " * depth + line)
            line = ""
        elif kind == tokenize.INDENT:
            depth += 1
        elif kind == tokenize.DEDENT:
            depth = max(0, depth - 1)
        else:
            line += f" {text}" if line else text
    return "\n".join([*lines, "    " * depth + line]) + "\n"
