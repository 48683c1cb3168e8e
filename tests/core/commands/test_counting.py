"""What commands show of how far they have come."""

from __future__ import annotations

import io

import pytest

from aimcore.cli import progress_counter as counting
from aimcore.cli.progress_counter import Counting
from aimcore.io.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def count(file: io.StringIO, *, until: int = 3) -> str:
    with Counting(3, "cases", console=Terminal(file=file, width=100)) as shown:
        for number in range(until):
            shown.begin(f"case[{number}]")
            shown.end()
        if until < 3:
            raise KeyboardInterrupt
    return file.getvalue()


def test_elsewhere_than_on_a_terminal_a_line_says_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count(io.StringIO()) == "checking 3 cases\n"
    monkeypatch.setattr(counting, "SECONDS_BETWEEN_LINES", -1.0)
    assert count(io.StringIO()).splitlines() == ["checking 3 cases", *(f"{n} of 3 cases checked" for n in (1, 2, 3))]


def test_on_a_terminal_a_bar_names_what_is_checked() -> None:
    assert "checking case[2]" in count(Screen())


def test_an_interrupt_says_how_much_was_done() -> None:
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        count(file, until=2)
    assert file.getvalue().splitlines()[-1] == "interrupted: 2 of 3 cases checked"
