"""A page of the documentation, taken apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^##+ (.+)$", flags=re.MULTILINE)


class Block(NamedTuple):
    """Something to copy from a page."""

    section: str
    """The heading it stands below; empty above the first."""
    language: str
    title: str
    code: str


def blocks_of(name: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (DOCS / name).read_text(encoding="utf-8")
    headings = [(found.start(), found.group(1)) for found in _HEADING.finditer(_without_code(text))]
    return [
        Block(
            section=["", *(title for start, title in headings if start < found.start())][-1],
            language=found.group(1),
            title=found.group(2) or "",
            code=found.group(3),
        )
        for found in _BLOCK.finditer(text)
    ]


def headings_of(name: str) -> list[str]:
    """The headings of a page, without marks for code."""
    text = _without_code((DOCS / name).read_text(encoding="utf-8"))
    return [title.replace("`", "") for title in _HEADING.findall(text)]


def _without_code(text: str) -> str:
    """The text with blanks where its blocks are: comments there are no headings."""
    return _BLOCK.sub(lambda found: " " * len(found.group(0)), text)
