import json
import pickle
import sys
from pathlib import Path

import pytest

from aimcore import InvalidValue
from aimcore.contracts.errors import DataNotFound
from aimcore_tokenizers import BPE
from aimcore_tokenizers.files import MissingLibrary, TokenizerFileError

CORPUS = ["A red shoe", "a red  bag", "two red shoes", "blue shoes"] * 5


@pytest.fixture
def trained(tmp_path: Path) -> BPE:
    return BPE.train(CORPUS, tmp_path / "vocabulary" / "tokenizer.json", vocabulary_size=280)


def test_a_trained_vocabulary_is_of_the_size_asked_for_and_needs_fewer_ids_than_bytes(trained: BPE) -> None:
    assert 270 < trained.vocabulary_size <= 280
    assert len(trained.tokens("a red shoe")) < 10


def test_special_tokens_have_the_first_ids(trained: BPE) -> None:
    assert (trained.padding_id, trained.end_id, trained.begin_id) == (0, 1, None)
    row = trained.encode(["Red"], 12).ids_BT[0].tolist()
    assert row == [*trained.tokens("red"), 1, *[0] * (11 - len(trained.tokens("red")))]


def test_text_comes_back_cleaned(trained: BPE) -> None:
    for text, back in (("A  RED shoe", "a red shoe"), ("日本 né 😀", "日本 né 😀"), ("", "")):
        assert trained.decode(trained.encode([text], 77).ids_BT[0].tolist()) == back


def test_a_caption_that_spells_a_special_token_is_text(trained: BPE) -> None:
    tokens = trained.tokens("<end> <padding>")
    assert {trained.end_id, trained.padding_id}.isdisjoint(tokens)
    assert trained.decode(tokens) == "<end> <padding>"


def test_the_same_corpus_gives_the_same_file(trained: BPE, tmp_path: Path) -> None:
    again = BPE.train(CORPUS, tmp_path / "again.json", vocabulary_size=280)
    assert again.sha256 == trained.sha256
    assert BPE.from_file(trained.path) == trained


def test_truncation_and_padding_of_the_file_do_not_count(trained: BPE, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer.from_file(trained.path)
    model.enable_truncation(2)
    model.enable_padding(length=50)
    model.save(str(tmp_path / "other.json"))
    other = BPE.from_file(str(tmp_path / "other.json"))
    assert other.tokens("two red shoes") == trained.tokens("two red shoes")
    assert len(other.tokens("two red shoes")) > 2


def test_another_file_is_an_error_that_shows_both_hashes(trained: BPE) -> None:
    path = Path(trained.path)
    path.write_text(path.read_text() + "\n")
    with pytest.raises(TokenizerFileError, match=rf"has the SHA-256 [0-9a-f]{{64}}, but {trained.sha256} is recorded"):
        _ = trained.vocabulary_size


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"cannot read the tokenizer's file .*none.json: FileNotFoundError"):
        BPE.from_file(str(tmp_path / "none.json"))


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
NESTED = '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    "content", ["no json", "[1]", '{"model": 3}', '{"version": "1.0"}', '{"model": {"type": "BPE"}}', NESTED]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerFileError, match=r"is not a tokenizer\.json"):
        _ = BPE.from_file(str(path)).vocabulary_size


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"type": "Unigram", "vocab": 5}},
        {"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]}},
        {"decoder": {"type": "Nothing"}},
        {"added_tokens": [{"id": 0}]},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAECAwQFBgcICQ=="}},
        {"normalizer": {"type": "Prepend", "prepend": ""}, "pre_tokenizer": BYTE_LEVEL},
        {"model": {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}, "added_tokens": []},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
    ],
    ids=["vocabulary", "unknown id", "decoder", "added tokens", "regex", "panic", "later panic", "huge id", "empty"],
)
def test_what_the_library_says_of_a_damaged_file_comes_with_its_name(trained: BPE, change: dict[str, object]) -> None:
    path = Path(trained.path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    damaged = BPE.from_file(str(path))
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json is not a (sound )?tokenizer\.json: \S+"):
        _ = damaged.vocabulary_size, damaged.tokens("a red shoe")


def test_a_byte_order_mark_in_the_file_is_read_over(trained: BPE) -> None:
    path = Path(trained.path)
    tokens = trained.tokens("two red shoes")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert BPE.from_file(str(path)).tokens("two red shoes") == tokens


def test_half_a_character_is_named_and_nul_is_text(trained: BPE) -> None:
    with pytest.raises(InvalidValue, match=r"texts: in 'a \\ud83d', character 2 is the lone surrogate U\+D83D"):
        trained.encode(["a \ud83d"], 9)
    assert trained.decode(trained.encode(["a\0b"], 9).ids_BT[0].tolist()) == "a\0b"


def test_an_unknown_special_token_names_those_of_the_file(trained: BPE) -> None:
    with pytest.raises(
        TokenizerFileError, match=r"no token '</s>', which is the end .* such as \['<padding>', '<end>'"
    ):
        BPE.from_file(trained.path, end="</s>").encode(["a"], 5)


def test_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"sha256: must be the file's SHA-256 in 64 .* got 'abc'"):
        BPE(path="tokenizer.json", sha256="abc")


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"vocabulary_size: must be at least 259 .* got 100"):
        BPE.train(CORPUS, tmp_path / "small.json", vocabulary_size=100)


def test_it_travels_to_workers_as_a_recipe(trained: BPE) -> None:
    before = trained.tokens("two red shoes")
    sent = pickle.dumps(trained)
    assert len(sent) < 1000
    assert pickle.loads(sent).tokens("two red shoes") == before


def test_without_the_library_the_extra_is_named(trained: BPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingLibrary, match=r"'bpe' needs the package tokenizers .* pip install 'aimcore\[text\]'"):
        _ = BPE.from_file(trained.path).vocabulary_size
