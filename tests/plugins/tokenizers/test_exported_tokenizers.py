"""Tokenizers as files of transformers: the ids of texts are equal there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from vocabularies import write_clip_merges

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


def test_what_has_no_files_says_so() -> None:
    assert GivenIds(size=10).export(5) == {}
    with pytest.raises(NotImplementedError, match="tokenizer 'sentencepiece' cannot be written as the files"):
        SentencePiece(path="x", sha256="0" * 64).export(5)
