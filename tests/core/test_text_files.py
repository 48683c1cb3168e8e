"""One rule for text from files: UTF-8, an optional byte-order mark, lines that only line feeds end."""

import pytest

from aimcore.io.text_files import DamagedText, decode_text, flaw_in, parse_json, split_lines


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert decode_text(b"\xef\xbb\xbfn\xc3\xa9", "x") == decode_text(b"n\xc3\xa9", "x") == "né"
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "x") == {"a": 1}


def test_bytes_that_are_no_utf8_are_named_with_their_place() -> None:
    with pytest.raises(DamagedText, match=r"^names.txt is not UTF-8 text: byte 2 is 0xe9 \(.*\): save it as UTF-8$"):
        decode_text("né".encode("latin-1").replace(b"n", b"no"), "names.txt")
    # JSON's own detection would read these, and no other reader.
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(DamagedText, match="byte 0 is 0xff"):
            parse_json('{"a": 1}'.encode(encoding), "x")


def test_only_line_feeds_end_lines() -> None:
    text = "a\u2028b\x85c\x0cd\x1ee\rf\r\n\r\ng"
    assert split_lines(text) == ["a\u2028b\x85c\x0cd\x1ee\rf", "", "g"]
    assert split_lines("a\n") == split_lines("a") == ["a"]
    assert split_lines("") == []


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"])
def test_json_that_is_none_is_named(content: bytes) -> None:
    with pytest.raises(DamagedText, match=r"^list\.json is not JSON: "):
        parse_json(content, "list.json")


def test_half_a_character_is_a_flaw() -> None:
    assert flaw_in("a \ud83d") == "character 2 is the lone surrogate U+D83D, half of a character"
    assert flaw_in("\udce9t") == "character 0 is the lone surrogate U+DCE9, half of a character"
    assert flaw_in("an emoji 😀, a NUL \0 and U+FFFD \ufffd") is None
