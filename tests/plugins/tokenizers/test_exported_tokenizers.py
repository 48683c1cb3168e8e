"""Tokenizers as files of transformers: the ids of texts are equal there."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer
from vocabularies import write_clip_merges, write_sentencepiece

from aimcore import TextTokenizer
from aimcore_tokenizers import BPE, Bytes, ClipBPE, GivenIds, SentencePiece

TEXTS = [
    "Don't stop: 3,141 dogs!",
    "  A  cat\n on a mat ",
    "",
    "Blue-green é",
    "a very long text about many more things",
]


def opened(tokenizer: TextTokenizer, folder: Path, length: int):
    for name, content in tokenizer.export(length).items():
        (folder / name).write_bytes(content)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["bytes", "bytes without begin", "bpe", "bpe with begin"])
def test_transformers_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    own = {
        "bytes": lambda: Bytes(begin=True),
        "bytes without begin": lambda: Bytes(lower_case=False, delete_punctuation=True),
        "bpe": lambda: BPE.train(TEXTS, tmp_path / "bpe" / "tokenizer.json", vocabulary_size=300),
        "bpe with begin": lambda: BPE.from_file(
            BPE.train(TEXTS, tmp_path / "bpe" / "tokenizer.json", vocabulary_size=300).path, begin="<begin>"
        ),
    }
    tokenizer = own[kind]()
    theirs = opened(tokenizer, tmp_path, 12)(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(theirs["input_ids"], tokenizer.encode(TEXTS, 12).ids_BT)


def test_clips_vocabulary_gives_the_same_ids_up_to_the_end(tmp_path: Path) -> None:
    tokenizer = ClipBPE.from_file(write_clip_merges(tmp_path))
    theirs = opened(tokenizer, tmp_path, 16)(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    for mine_T, their_T in zip(tokenizer.encode(TEXTS, 16).ids_BT, theirs["input_ids"], strict=True):
        length = mine_T.tolist().index(tokenizer.end_id) + 1
        assert mine_T[:length].tolist() == their_T[:length].tolist()


CAPTIONS = [
    *TEXTS,
    "it's the dog's; they'll've gone, I'D say (twice)...",
    "caf\u00e9 NA\u00cfVE \u4e2d\u6587\u5b57 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0639\u0631\u0628\u064a",
    "\U0001f436\U0001f3fd family \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f #1!",
    "tabs\tand\nnew\u3000lines\u00a0",
    "!?!? --- 'quoted' \"double\" 3.14 50% a_b <b> a/b \\ ~",
    "word " * 40,
    "x" * 100,
]


@pytest.mark.parametrize("files", ["all files", "vocabulary and merges"])
def test_transformers_own_class_of_clip_gives_the_same_ids(files: str, tmp_path: Path) -> None:
    tokenizer = ClipBPE.from_file(write_clip_merges(tmp_path))
    (tmp_path / "out").mkdir()
    exported = tokenizer.export(16)
    assert {"vocab.json", "merges.txt", "special_tokens_map.json"} < exported.keys()
    for name, content in exported.items():
        if files == "all files" or name != "tokenizer.json":
            (tmp_path / "out" / name).write_bytes(content)
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "out")(CAPTIONS, padding="max_length", truncation=True)[
        "input_ids"
    ]
    for mine_T, their_T in zip(tokenizer.encode(CAPTIONS, 16).ids_BT.tolist(), theirs, strict=True):
        length = mine_T.index(tokenizer.end_id) + 1
        assert mine_T[:length] == their_T[:length]
        assert set(their_T[length:]) <= {tokenizer.end_id}


def test_files_of_clips_class_are_written_only_where_it_gives_the_same_ids(tmp_path: Path) -> None:
    own = ClipBPE.from_file(write_clip_merges(tmp_path))
    trained = BPE.train(TEXTS, tmp_path / "bpe" / "tokenizer.json", vocabulary_size=300)
    for other in (
        attrs.evolve(own, begin=False),
        attrs.evolve(own, lower_case=False),
        attrs.evolve(own, delete_punctuation=True),
        BPE.from_file(trained.path, begin="<begin>"),  # its words have no end mark
    ):
        assert other.export(9).keys() == {"tokenizer.json", "tokenizer_config.json"}


def test_siglips_class_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = SentencePiece.from_file(write_sentencepiece(tmp_path, TEXTS), delete_punctuation=True)
    (tmp_path / "out").mkdir()
    theirs = opened(tokenizer, tmp_path / "out", 12)
    assert type(theirs).__name__ == "SiglipTokenizer"
    assert (tmp_path / "out/spiece.model").read_bytes() == Path(tokenizer.path).read_bytes()
    found = theirs(CAPTIONS, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(found, tokenizer.encode(CAPTIONS, 12).ids_BT)


def test_what_has_no_files_says_so(tmp_path: Path) -> None:
    assert GivenIds(size=10).export(5) == {}
    path = write_sentencepiece(tmp_path, TEXTS)
    with pytest.raises(NotImplementedError, match=r"only in SigLIP's form .*, and has delete_punctuation=False"):
        SentencePiece.from_file(path).export(5)
    with pytest.raises(NotImplementedError, match="and has pads_with='padding'"):
        SentencePiece.from_file(path, delete_punctuation=True, pads_with="padding").export(5)
