"""Small CLIP and SigLIP models of transformers, with their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from vocabularies import write_sentencepiece

from aimcore_objectives import TransformersTowers
from aimcore_tokenizers import Bytes
from aimcore_trunks.transformers_building import config_of
from aimcore_trunks.transformers_models import TransformersTrunk, image_tower_trunk

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
    model.logit_scale.data.fill_(2.3)
    model.logit_bias.data.fill_(-10.0)
    model.save_pretrained(folder)
    return model, tokenizer


def untrained(family: str, **vision: Any) -> TransformersTowers:
    """The towers of a model that has never been trained and reads the bytes of texts, with the loss of its family."""
    tokenizer = Bytes()
    sizes = {"image_size": 16, "patch_size": 4, **vision}
    text: dict[str, Any] = {**SIZES, "vocab_size": tokenizer.vocabulary_size, "max_position_embeddings": 6}
    if family == "clip":
        text["eos_token_id"] = tokenizer.end_id
        made: Any = transformers.CLIPConfig(
            text_config=text, vision_config={**SIZES, **sizes}, projection_dim=12, initializer_factor=1.0
        )
    else:
        made = transformers.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config={**SIZES, **sizes})
    config = json.dumps(made.to_dict(), sort_keys=True)
    return TransformersTowers(
        config=config, tokenizer=tokenizer, context_length=6, loss="softmax" if family == "clip" else "sigmoid"
    )


def image_tower(towers: TransformersTowers) -> TransformersTrunk:
    """The trunk in the configuration of towers."""
    settings = config_of(towers.config)
    return image_tower_trunk(settings, head=settings.model_type == "clip")


MAKERS = {"clip": clip, "siglip": siglip}
