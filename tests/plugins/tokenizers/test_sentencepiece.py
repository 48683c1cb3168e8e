from pathlib import Path

import pytest
from vocabularies import write_sentencepiece

from aimcore_tokenizers import SentencePiece
from aimcore_tokenizers.files import TokenizerFileError

CORPUS = ["a red shoe", "a red bag", "two red shoes", "blue shoes", "a coat and a bag"] * 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sentencepiece(tmp_path_factory.mktemp("siglip"), CORPUS)


def test_the_end_is_also_the_padding_and_is_not_scored(path: str) -> None:
    tokenizer = SentencePiece.from_file(path)
    text = tokenizer.encode(["A red  shoe"], 16)
    num_tokens = len(tokenizer.tokens("a red shoe"))
    assert (tokenizer.end_id, tokenizer.padding_id, tokenizer.begin_id) == (1, 1, None)
    assert text.ids_BT[0, num_tokens:].tolist() == [1] * (16 - num_tokens)
    # Ignoring id 1 is what the authors' loss does: the same positions are scored.
    assert text.valid_BT.tolist() == (text.ids_BT != 1).tolist()


def test_supervise_end_scores_the_first_end_and_no_padding(path: str) -> None:
    tokenizer = SentencePiece(path=path, sha256=SentencePiece.from_file(path).sha256, supervise_end=True)
    text = tokenizer.encode(["a red shoe"], 16)
    assert int(text.valid_BT.sum()) == len(tokenizer.tokens("a red shoe")) + 1


def test_the_file_s_own_padding_may_be_used(path: str) -> None:
    tokenizer = SentencePiece.from_file(path, pads_with="padding")
    row = tokenizer.encode(["a"], 6).ids_BT[0].tolist()
    assert row == [*tokenizer.tokens("a"), 1, *[0] * (5 - len(tokenizer.tokens("a")))]


def test_text_comes_back(path: str) -> None:
    tokenizer = SentencePiece.from_file(path)
    assert tokenizer.decode(tokenizer.encode(["two  Red bag"], 32).ids_BT[0].tolist()) == "two red bag"
    assert tokenizer.encode(["a red shoe"], 16).ids_BT.max() < tokenizer.vocabulary_size


def test_a_caption_that_spells_the_end_does_not_end(path: str) -> None:
    assert 1 not in SentencePiece.from_file(path).tokens("a </s> bag")


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    endless = SentencePiece.from_file(write_sentencepiece(tmp_path, CORPUS, eos_id=-1))
    with pytest.raises(TokenizerFileError, match=r"has no piece for the end of a sentence \(eos\)"):
        endless.encode(["a"], 5)
    (tmp_path / "text.model").write_text("hello")
    with pytest.raises(TokenizerFileError, match="is no SentencePiece model"):
        _ = SentencePiece.from_file(str(tmp_path / "text.model")).vocabulary_size
