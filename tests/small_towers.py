"""Small CLIP and SigLIP models of transformers, with their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import nn
from vocabularies import write_sentencepiece

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = ["a", "cat", "dog", "photo", "of"]
TEXTS = ["a photo of a cat", "Dog  a cat", "", "dog"]


def stirred(model: Any) -> Any:
    for value in model.parameters():
        nn.init.normal_(value, 0.5 if value.dim() == 1 else 0.0, 0.2)
    return model.eval()


def clip(folder: Path) -> Any:
    """A small CLIP with the tokenizer of its words, saved by transformers."""
    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            vocabulary.append(parts[0])
    ids = {
        token: number for number, token in enumerate([*dict.fromkeys(vocabulary), "<|startoftext|>", "<|endoftext|>"])
    }
    tokenizer = transformers.CLIPTokenizer(vocab=ids, merges=list(dict.fromkeys(merges)), model_max_length=9)
    tokenizer.save_pretrained(folder)
    end = {"eos_token_id": ids["<|endoftext|>"], "bos_token_id": ids["<|startoftext|>"], "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={**SIZES, "vocab_size": len(ids), "max_position_embeddings": 9, **end},
        vision_config={**SIZES, "hidden_size": 20, "image_size": 16, "patch_size": 8}, projection_dim=12,
    )  # fmt: skip
    model = stirred(transformers.CLIPModel(config))
    model.logit_scale.data.fill_(4.7)  # above CLIP's bound, 100
    model.save_pretrained(folder)
    return model, tokenizer


def siglip(folder: Path) -> Any:
    """A small SigLIP with a trained vocabulary, saved by transformers."""
    folder.mkdir(exist_ok=True)
    path = write_sentencepiece(folder, [*TEXTS, "a cat of a dog", *WORDS])
    tokenizer = transformers.SiglipTokenizer(path, model_max_length=9)
    tokenizer.save_pretrained(folder)
    config = transformers.SiglipConfig(
        text_config={**SIZES, "vocab_size": 40, "max_position_embeddings": 9, "projection_size": 16},
        vision_config={**SIZES, "image_size": 16, "patch_size": 8},
    )  # fmt: skip
    model = stirred(transformers.SiglipModel(config))
    model.save_pretrained(folder)
    return model, tokenizer


MAKERS = {"clip": clip, "siglip": siglip}
