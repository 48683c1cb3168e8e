"""What reaches a terminal."""

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from aimcore.io.terminal import Terminal, json_text, plain_text

HOSTILE = "\x1b[31m[red]a[/] :smile:\x07\x9b\ud800"
SAFE = r"\x1b[31m[red]a[/] :smile:\x07\x9b\ud800"


@pytest.fixture
def terminal() -> Terminal:
    return Terminal(file=io.StringIO(), width=200)


def written(terminal: Terminal) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_lines_cells_titles_and_headings_are_shown_as_they_are(terminal: Terminal) -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    terminal.print(table)
    terminal.print(HOSTILE, plain_text(HOSTILE, "bold"))
    assert written(terminal).count(SAFE) == 6
    assert "\x1b" not in written(terminal)


def test_styles_are_texts(terminal: Terminal) -> None:
    table = Table()
    table.add_row(Text("finished", "green"))
    terminal.print(table)
    assert "finished" in written(terminal)


def test_data_are_json_with_escapes(terminal: Terminal) -> None:
    data = {"name": HOSTILE, "läßt": [1, None, 0.5], "long": "x" * 500}
    terminal.print_data(data)
    assert json.loads(written(terminal)) == data
    assert written(terminal) == json_text(data) + "\n"
    assert written(terminal).replace("\n", "").isprintable()
