"""Values and names in messages: short, and safe to print."""

from itertools import count
from typing import Any

import pytest

from aimcore.contracts.messages import printable, printable_lines, shown


@pytest.mark.parametrize(
    "value",
    [
        [], (), (1,), (1, "a"), {}, {"a": [1, None], 2: (True,)}, set(), {1}, frozenset({1}), frozenset(), "it's", b"a",
        1.5, 10**59, -3, None, [[[]], {}], "x" * 198, {"a": {"b": [1.0]}},
    ],
)  # fmt: skip
def test_short_values_are_shown_as_python_writes_them(value: Any) -> None:
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 1000, "'" + "x" * 199 + "..."),
        (b"x" * 1000, "b'" + "x" * 198 + "..."),
        ([0] * 1000, "[" + "0, " * 66 + "0..."),
        ({1: 2, "a": "y" * 1000}, "{1: 2, 'a': '" + "y" * 187 + "..."),
        pytest.param(10**5000, "a whole number of 16610 bits", id="digits"),
    ],
)
def test_long_values_are_cut(value: Any, text: str) -> None:
    assert shown(value).startswith(text)
    assert len(shown(value)) <= 203


def test_no_more_of_a_value_is_looked_at_than_is_shown() -> None:
    bomb: list[Any] = ["x"]
    for _ in range(100):
        bomb = [bomb] * 100
    assert shown(bomb).startswith("[[[[")
    looked = count()

    class Watched:
        def __repr__(self) -> str:
            next(looked)
            return "watched"

    shown([Watched()] * 1000)
    assert next(looked) < 50


def test_a_value_that_holds_itself_is_cut() -> None:
    value: list[Any] = []
    value.append(value)
    assert shown(value) == "[" * 200 + "..."


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("läßt 数 🎉", "läßt 数 🎉"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x9b31m \x7f", r"\x9b31m \x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_terminals_obey_is_written_as_escapes(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_lines_may_stay() -> None:
    assert printable_lines("a\n\tb\r\x1b") == "a\n\tb\\r\\x1b"
