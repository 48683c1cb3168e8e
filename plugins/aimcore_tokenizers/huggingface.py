"""Tokenizers as files of Hugging Face's libraries, which give the same ids there."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from aimcore_tokenizers.clip_files import clip_files, is_clips
from aimcore_tokenizers.files import library
from aimcore_tokenizers.sequences import SequenceTokenizer

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def exported(
    tokenizer: SequenceTokenizer, model: Any, specials: Mapping[str, str], context_length: int
) -> dict[str, bytes]:
    """Return ``tokenizer.json`` and ``tokenizer_config.json``, for ``transformers.AutoTokenizer``.

    A tokenizer in CLIP's form also gets the files of ``transformers.CLIPTokenizer``, which gives the same ids, and
    composes characters before (NFC). A text that spells a special token is that token there, and text here.
    ``repair_text`` is not part of the files.

    Args:
        tokenizer: the component.
        model: a ``tokenizers.Tokenizer`` of the component's own, with its model and pre-tokenizer; it is changed.
        specials: the special tokens by transformers' names: ``eos_token``, ``pad_token``, ``bos_token``.
        context_length: largest number of ids.
    """
    tokenizers = library("tokenizers", tokenizer.name)
    as_clip = "bos_token" in specials and tokenizer.lower_case and not tokenizer.delete_punctuation and is_clips(model)
    own = model.normalizer
    steps = [*_cleaning(tokenizer, tokenizers.normalizers, tokenizers.Regex), *([] if own is None else [own])]
    model.normalizer = tokenizers.normalizers.Sequence(steps) if steps else None
    model.add_special_tokens(list(dict.fromkeys(specials.values())))
    frame = [specials[name] for name in ("bos_token", "eos_token") if name in specials]
    begin = f"{specials['bos_token']} " if "bos_token" in specials else ""
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin}$A {specials['eos_token']}", special_tokens=[(one, model.token_to_id(one)) for one in frame]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **specials,
    }
    return {
        TOKENIZER_FILE: model.to_str(pretty=True).encode(),
        CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        **(clip_files(model, specials) if as_clip else {}),
    }


def _cleaning(tokenizer: SequenceTokenizer, normalizers: Any, regex: Any) -> list[Any]:
    """Return the normalizers that clean a text as the component does, in the same order."""
    spaces = [normalizers.Replace(regex(r"\s+"), " "), normalizers.Strip()]
    steps = [*spaces] if tokenizer.clean_whitespace else []
    if tokenizer.lower_case:
        steps.append(normalizers.Lowercase())
    if tokenizer.delete_punctuation:
        marks = "".join(f"\\{mark}" for mark in string.punctuation)
        steps += [normalizers.Replace(regex(f"[{marks}]"), ""), *spaces]
    return steps
