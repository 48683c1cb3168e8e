"""Golden ids: CLIP's own tokenizer (open_clip 3, ``SimpleTokenizer``) on its released file of merges.

``clip_merges.json`` holds the merges of that file, by their place, which these texts could ever use; the other places
are filled with merges of bytes that no text has, so that every id stays what it is.
"""

import gzip
from itertools import islice
from pathlib import Path

import pytest
from vocabularies import fillers, write_clip_merges

from aimcore_tokenizers import ClipBPE
from aimcore_tokenizers.clip_bpe import NUM_MERGES
from aimcore_tokenizers.files import TokenizerFileError

GOLDEN = {
    "a photo of a cat.": [49406, 320, 1125, 539, 320, 2368, 269, 49407],
    "Don't stop: 3,141 dogs!": [49406, 847, 713, 1691, 281, 274, 267, 272, 275, 272, 3255, 256, 49407],
    "  Straße  in München\n déjà vu ": [
        49406, 1894, 127, 253, 324, 530, 41235, 8983, 25466, 73, 21259, 13230, 49407,
    ],
    "日本 and émoji 😀": [49406, 39121, 19277, 361, 537, 3459, 617, 2697, 7334, 49407],
    "snow-covered mountains & 2 lakes": [49406, 2583, 268, 5603, 5873, 261, 273, 9265, 49407],
    "": [49406, 49407],
    "supercalifragilistic": [49406, 1642, 2857, 13093, 2076, 1561, 49407],
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipBPE:
    return ClipBPE.from_file(write_clip_merges(tmp_path_factory.mktemp("clip")))


@pytest.mark.parametrize("text", GOLDEN)
def test_ids_are_those_of_clips_own_code(clip: ClipBPE, text: str) -> None:
    ids = GOLDEN[text]
    assert clip.encode([text], 16).ids_BT.tolist() == [ids + [0] * (16 - len(ids))]


def test_a_long_text_is_cut_before_its_end_as_in_clips_code(clip: ClipBPE) -> None:
    text = clip.encode(["Don't stop: 3,141 dogs!"], 5)
    assert text.ids_BT.tolist() == [[49406, 847, 713, 1691, 49407]]
    assert text.valid_BT.tolist() == [[True, True, True, True, False]]


def test_an_exclamation_mark_has_the_padding_s_id_only_behind_the_end(clip: ClipBPE) -> None:
    # "!" within a word has id 0; as a word of its own it is "!</w>", id 256.
    assert clip.decode([49406, 0, 256, 49407, 0, 0]) == "!!"


def test_a_text_comes_back_as_words_between_spaces(clip: ClipBPE) -> None:
    assert clip.decode(GOLDEN["Don't stop: 3,141 dogs!"]) == "don 't stop : 3 , 1 4 1 dogs !"
    assert clip.decode(GOLDEN["日本 and émoji 😀"]) == "日本 and émoji 😀"


def test_without_a_begin_token_the_text_stands_first(clip: ClipBPE) -> None:
    bare = ClipBPE.from_file(clip.path, begin=False)
    assert bare.encode(["a photo of a cat."], 8).ids_BT.tolist() == [[320, 1125, 539, 320, 2368, 269, 49407, 0]]
    assert (bare.begin_id, bare.vocabulary_size) == (None, 49_408)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"# version\na b\n"))
    with pytest.raises(TokenizerFileError, match="has 1 merges after its first line, not 48,894"):
        _ = ClipBPE.from_file(str(tmp_path / "short.gz")).vocabulary_size
    (tmp_path / "plain.gz").write_bytes(b"a b")
    with pytest.raises(TokenizerFileError, match="is not gzipped text"):
        _ = ClipBPE.from_file(str(tmp_path / "plain.gz")).vocabulary_size


def test_merges_of_unknown_parts_are_refused(tmp_path: Path) -> None:
    lines = islice(fillers(), NUM_MERGES - 1)
    (tmp_path / "odd.gz").write_bytes(gzip.compress("\n".join(["#", *lines, "一 二"]).encode(), 1))
    with pytest.raises(TokenizerFileError, match="merges '一', which is neither a byte nor merged before"):
        _ = ClipBPE.from_file(str(tmp_path / "odd.gz")).vocabulary_size
