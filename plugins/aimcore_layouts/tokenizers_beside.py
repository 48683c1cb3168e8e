"""Tokenizers in the files next to the weights of two towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs

from aimcore import TextTokenizer
from aimcore.io.weight_siblings import beside, has_sibling, json_object, read_sibling
from aimcore_tokenizers import BPE, GivenIds, SentencePiece

TOKENIZER_FILE, TOKENIZER_CONFIG, SENTENCEPIECE_FILE = "tokenizer.json", "tokenizer_config.json", "spiece.model"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
"""Special tokens of CLIP's vocabulary in a ``tokenizer.json``."""
_DELETING = ("SiglipTokenizer", "SiglipTokenizerFast")
"""Classes of transformers that delete punctuation."""


def tokenizer_beside(url: str | None, vocabulary: int, end: int | None) -> TextTokenizer:
    """Return the ``tokenizer.json`` next to the weights, else a stand-in that knows ids only.

    The special tokens are those in the ``tokenizer_config.json`` of transformers, else those of CLIP.

    Args:
        url: the file of weights; None if there is no file.
        vocabulary: number of ids of the stand-in.
        end: end token of the stand-in.
    """
    if url is None or not has_sibling(url, TOKENIZER_FILE):
        return GivenIds(size=vocabulary, end=end)
    stated = _config(url)
    end_token = _token(stated.get("eos_token")) or _END
    begin = _token(stated.get("bos_token")) if "eos_token" in stated else _BEGIN
    found = BPE.from_file(
        beside(url, TOKENIZER_FILE),
        begin=None if stated.get("add_bos_token") is False else begin,
        end=end_token,
        padding=_token(stated.get("pad_token")) or end_token,
    )
    deletes = stated.get("tokenizer_class") in _DELETING
    return cast(TextTokenizer, attrs.evolve(cast(Any, found), delete_punctuation=True)) if deletes else found


def sentencepiece_beside(url: str | None, vocabulary: int) -> TextTokenizer:
    """Return SigLIP's ``spiece.model`` next to the weights, else what :func:`tokenizer_beside` finds.

    The library is needed when texts are encoded, and not to open the file.
    """
    if url is None or not has_sibling(url, SENTENCEPIECE_FILE):
        return tokenizer_beside(url, vocabulary, None)
    return SentencePiece.from_file(beside(url, SENTENCEPIECE_FILE), delete_punctuation=True)


def _config(url: str) -> Mapping[str, Any]:
    return json_object(read_sibling(url, TOKENIZER_CONFIG), beside(url, TOKENIZER_CONFIG)) or {}


def _token(stated: object) -> str | None:
    """Return a special token, which transformers writes as a text or as an object."""
    content = stated.get("content") if isinstance(stated, Mapping) else stated
    return content if isinstance(content, str) else None
