"""Output for people: the only module that creates consoles.

Names may come from untrusted files. Every terminal shows them as text: nothing in them is markup, an emoji's code, or
a control character that the terminal obeys.
"""

from __future__ import annotations

import json
from typing import IO, Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from aimcore.contracts.messages import printable_lines


class Terminal(Console):
    """A console that prints every text literally, with control characters written as escapes."""

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> None:
        super().__init__(stderr=stderr, file=file, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text printable; cells and titles of tables are rendered here too."""
        return super().render_str(printable_lines(text), **options)

    def print_data(self, data: Any) -> None:
        """Print plain values as JSON; other values in it are converted to text."""
        self.print(JSONHighlighter()(Text(json_text(data))), soft_wrap=True)


def plain_text(text: str, style: str = "") -> Text:
    """Return a text in a style, with control characters written as escapes."""
    return Text(printable_lines(text), style)


def json_text(data: Any) -> str:
    """Return ``data`` as JSON in which every unprintable character is escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
