import pytest

from aimcore import InvalidValue
from aimcore_tokenizers import Bytes

# "Ab" is 65 98 in ASCII; in lower case 97 98, counted from 3: 100 101.


def test_a_row_is_the_text_the_end_and_padding() -> None:
    text = Bytes().encode(["Ab", ""], 5)
    assert text.ids_BT.tolist() == [[100, 101, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert text.valid_BT.tolist() == [[True, True, False, False, False], [False] * 5]


def test_a_begin_token_stands_first_and_is_scored() -> None:
    text = Bytes(begin=True).encode(["ab"], 5)
    assert text.ids_BT.tolist() == [[2, 100, 101, 1, 0]]
    assert text.valid_BT.tolist() == [[True, True, True, False, False]]


def test_the_end_is_scored_only_if_asked_for() -> None:
    text = Bytes(supervise_end=True).encode(["ab", "abcd", ""], 5)
    assert text.ids_BT.tolist() == [[100, 101, 1, 0, 0], [100, 101, 102, 103, 1], [1, 0, 0, 0, 0]]
    assert text.valid_BT.sum(1).tolist() == [3, 5, 1]


def test_a_text_that_is_cut_has_an_end_that_is_never_scored() -> None:
    text = Bytes(supervise_end=True).encode(["abcdefgh"], 4)
    assert text.ids_BT.tolist() == [[100, 101, 102, 1]]
    assert text.valid_BT.tolist() == [[True, True, True, False]]


def test_captions_are_cleaned_unless_reported_otherwise() -> None:
    assert Bytes().cleaned("  A  Red\n\tShoe ") == "a red shoe"
    assert Bytes(lower_case=False, clean_whitespace=False).cleaned("  A  Red ") == "  A  Red "


def test_decoding_stops_at_the_end_and_shows_no_special_token() -> None:
    ids = Bytes(begin=True).encode(["une fée 😀"], 30).ids_BT[0].tolist()
    assert Bytes(begin=True).decode(ids) == "une fée 😀"
    assert Bytes().decode([2, 100, 0, 101, 1, 102]) == "ab"


def test_a_text_may_be_cut_within_a_character() -> None:
    cut = Bytes().encode(["aé"], 3).ids_BT[0].tolist()
    assert Bytes().decode(cut) == "a\ufffd"


def test_half_a_character_is_named_and_nul_is_text() -> None:
    with pytest.raises(InvalidValue, match=r"texts: in 'a\\udc80', character 1 is the lone surrogate U\+DC80"):
        Bytes().encode(["a\udc80"], 9)
    assert Bytes().encode(["\0"], 3).ids_BT.tolist() == [[3, 1, 0]]


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(InvalidValue, match="context_length: must be at least 3: 2 special tokens and one more, got 2"):
        Bytes(begin=True).encode(["a"], 2)


def test_ids_are_below_the_vocabulary_size() -> None:
    everything = bytes(range(256)).decode("latin-1")
    ids_BT = Bytes().encode([everything], 600).ids_BT
    assert ids_BT.max() < Bytes().vocabulary_size == 259
