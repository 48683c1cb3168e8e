import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from vocabularies import write_sentencepiece

from aimcore import InvalidValue
from aimcore_tokenizers import Bytes, ClipBPE, SentencePiece
from aimcore_tokenizers.files import MissingLibrary, TokenizerFileError

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
    for content in ("hello", ""):
        (tmp_path / "text.model").write_text(content)
        with pytest.raises(TokenizerFileError, match=r"text\.model is not a SentencePiece model: \w+"):
            _ = SentencePiece.from_file(str(tmp_path / "text.model")).vocabulary_size


def test_a_damaged_model_is_read_or_named(path: str, tmp_path: Path) -> None:
    whole, random = Path(path).read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(0, 256)
        (tmp_path / "damaged.model").write_bytes(damaged[: random.integers(1, 2 * len(whole))])
        with suppress(TokenizerFileError):
            SentencePiece.from_file(str(tmp_path / "damaged.model")).encode(["a red shoe"], 9)


def test_half_a_character_is_named_and_nul_is_text(path: str) -> None:
    tokenizer = SentencePiece.from_file(path)
    with pytest.raises(InvalidValue, match=r"texts: in 'a \\ud83d', character 2 is the lone surrogate U\+D83D"):
        tokenizer.encode(["a \ud83d"], 9)
    assert tokenizer.encode(["a\0b"], 9).valid_BT.sum() >= 3


# Derived by hand from what AIMv2's training code does: ftfy.fix_text, html.unescape twice, white space, lower case,
# str.translate without string.punctuation, white space again. ftfy itself unescapes only where there is no "<".
@pytest.mark.parametrize(
    ("caption", "canonical"),
    [
        ("a photo of the dog's red car, in the (small) house.", "a photo of the dogs red car in the small house"),
        ("Blue-green", "bluegreen"),
        ("snake_case - a  [dog]", "snakecase a dog"),
        ("Fish &amp;amp; chips", "fish chips"),
        ("&amp;lt;b&amp;gt;Bold", "bbold"),
        ("< &amp;amp;amp; dog", "amp dog"),  # twice and no more: "&amp;" is left, and loses its punctuation
        ("I donâ€™t know", "i dont know"),  # UTF-8 read as Windows-1252
        ("the dog’s bone", "the dogs bone"),  # ftfy makes curly quotes straight,
        ("<i>the dog&rsquo;s", "ithe dog’s"),  # but this one appears after ftfy, and is not in string.punctuation
        ("an em—dash…", "an em—dash…"),
        ("\tCafé\nau\u00a0 lait ", "café au lait"),
        ("?!", ""),
        ("", ""),
    ],
)
def test_captions_take_siglips_canonical_form(path: str, caption: str, canonical: str) -> None:
    tokenizer = SentencePiece.from_file(path, repair_text=True, delete_punctuation=True)
    assert tokenizer.cleaned(caption) == canonical
    assert (
        tokenizer.encode([caption], 64).ids_BT.tolist()
        == SentencePiece.from_file(path).encode([canonical], 64).ids_BT.tolist()
    )


def test_captions_stay_as_they_are_in_older_recipes(path: str) -> None:
    assert SentencePiece.from_file(path).cleaned("The dog&#39;s Blue-green") == "the dog&#39;s blue-green"


def test_repaired_captions_keep_their_punctuation() -> None:
    assert Bytes(repair_text=True).cleaned("Dogâ€™s &amp;quot;house&amp;quot;") == 'dog\'s "house"'


def test_without_ftfy_the_first_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    clip = ClipBPE(path="nowhere", sha256="0" * 64, repair_text=True)
    with pytest.raises(MissingLibrary, match=r"'clip_bpe' needs the package ftfy .* pip install 'aimcore\[text\]'"):
        clip.encode([""], 9)
