"""CLIP's vocabulary as ``vocab.json`` and ``merges.txt``, for ``transformers.CLIPTokenizer``.

That class has its own cleaning, its own division into words and its own frame of special tokens, and takes only the
vocabulary and the merges from files. So the files are written only for tokenizers that do the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

END_OF_WORD = "</w>"
_VOCABULARY, _MERGES, _SPECIALS = "vocab.json", "merges.txt", "special_tokens_map.json"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""How CLIP's code divides a text into words, without its special tokens."""
_PATTERNS = (CLIP_PATTERN, _WORDS, rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}")
"""Ways to write the same division; the special tokens in the last one are found before."""
_CLEANING = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]


def is_clips(model: Any) -> bool:
    """Whether a ``tokenizers.Tokenizer`` cleans and divides texts as CLIP's do, apart from the composition (NFC)."""
    document = json.loads(model.to_str())
    bpe, cleaning = document["model"], document["normalizer"]
    if bpe.get("type") != "BPE" or bpe.get("end_of_word_suffix") != END_OF_WORD or bpe.get("continuing_subword_prefix"):
        return False
    steps = (document["pre_tokenizer"] or {}).get("pretokenizers", [])
    if [step["type"] for step in steps] != ["Split", "ByteLevel"] or not steps[0]["invert"]:
        return False
    divides = steps[0]["pattern"].get("Regex") in _PATTERNS and steps[0]["behavior"] == "Removed"
    return divides and (cleaning is None or cleaning.get("normalizers") == _CLEANING)


def clip_files(model: Any, specials: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a tokenizer for which :func:`is_clips` is true, and which has all special tokens.

    Args:
        model: a ``tokenizers.Tokenizer``.
        specials: the special tokens by transformers' names: ``eos_token``, ``pad_token``, ``bos_token``.
    """
    merges = json.loads(model.to_str())["model"]["merges"]
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    vocabulary = sorted(model.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    return {
        _VOCABULARY: json.dumps(dict(vocabulary), ensure_ascii=False).encode(),
        _MERGES: "\n".join(["#version: 0.2", *lines, ""]).encode(),
        _SPECIALS: (json.dumps({**specials, "unk_token": specials["eos_token"]}, indent=2) + "\n").encode(),
    }
