"""Reading of text files by one rule: UTF-8 with or without a byte-order mark; only line feeds end lines.

Every reader of a user's text uses it: captions, labels, names of classes, listings, vocabularies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from aimcore.contracts.errors import AimcoreError

_SURROGATE = re.compile("[\ud800-\udfff]")


class DamagedText(AimcoreError):
    """A file is not UTF-8 text, or not the expected JSON."""


def decode_text(content: bytes, name: str) -> str:
    r"""Decode a file's content.

    >>> decode_text(b"\xef\xbb\xbfa red shoe", "caption.txt")
    'a red shoe'

    Args:
        content: UTF-8, with or without a byte-order mark.
        name: names the file in the error.

    Raises:
        DamagedText: the content is not UTF-8; the message has the first wrong byte.
    """
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        place = f"byte {cause.start} is 0x{content[cause.start]:02x}"
        raise DamagedText(f"{name} is not UTF-8 text: {place} ({cause.reason}): save it as UTF-8") from cause


def split_lines(text: str) -> list[str]:
    r"""Return the lines of a text, ended by ``\n`` or ``\r\n``.

    ``str.splitlines`` also splits at form feeds, U+0085, U+2028 and others, which JSON strings and names may contain.

    >>> split_lines("one\u2028still one\r\ntwo\n")
    ['one\u2028still one', 'two']
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def parse_json(content: bytes | str, name: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parse a JSON document.

    Args:
        content: the document; bytes are decoded by :func:`decode_text`.
        name: names the file, or the line, in the error.
        pairs: ``object_pairs_hook`` of :func:`json.loads`.

    Raises:
        DamagedText: the content is not UTF-8 or not JSON, or is nested too deeply.
    """
    text = content if isinstance(content, str) else decode_text(content, name)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as cause:
        raise DamagedText(f"{name} is not JSON: it is nested too deeply") from cause
    except ValueError as cause:
        raise DamagedText(f"{name} is not JSON: {cause}") from cause


def flaw_in(text: str) -> str | None:
    r"""Return what makes a text unusable, or None: half of a surrogate pair is not a character, and has no UTF-8.

    JSON can encode one (``"\ud83d"``), usually where a text was cut within an emoji.

    >>> flaw_in("a shoe \ud83d")
    'character 7 is the lone surrogate U+D83D, half of a character'
    """
    found = _SURROGATE.search(text)
    if found is None:
        return None
    return f"character {found.start()} is the lone surrogate U+{ord(found.group()):04X}, half of a character"
