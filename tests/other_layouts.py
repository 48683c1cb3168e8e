"""The golden weights in other layouts, by a conversion that shares nothing with the tables that are tested.

Names and axes follow the authors' converters and the models of transformers and timm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgpack
import torch
from torch import Tensor

State = Mapping[str, Tensor]
FLAX_ARRAY = 1


def transformers_vision(state: State, prefix: str = "") -> dict[str, Tensor]:
    """The vision model of transformers."""
    converted = {}
    for name, value in state.items():
        if "attn.qkv.weight" in name:
            number, third = re.findall(r"\d+", name)[0], len(value) // 3
            for index, part in enumerate("qkv"):
                place = f"encoder.layers.{number}.attention.{part}_proj.weight"
                converted[place] = value[index * third : (index + 1) * third]
            continue
        name = name.replace("preprocessor.patchifier.proj.", "embeddings.patch_embed.")
        name = name.replace("preprocessor.patchifier.norm.", "embeddings.rms_norm.")
        name = name.replace("trunk.post_trunk_norm.", "rms_norm.").replace("trunk.blocks.", "encoder.layers.")
        name = name.replace("attn.proj", "attention.out_proj").replace("norm_1", "rms_norm1")
        name = name.replace("norm_2", "rms_norm2").replace("mlp.fc1", "ffn.gate_proj")
        name = name.replace("mlp.fc3", "ffn.up_proj").replace("mlp.fc2", "ffn.down_proj")
        if name == "preprocessor.pos_embed":
            name, value = "embeddings.position_embedding.weight", value[0]
        converted[name] = value
    return {prefix + name: value.contiguous() for name, value in converted.items()}


def transformers_lit(state: State) -> dict[str, Tensor]:
    """The two-tower model of transformers."""
    image = {name.removeprefix("image_encoder."): value for name, value in state.items() if "image_encoder" in name}
    text = {name.removeprefix("text_encoder."): value for name, value in state.items() if "text_encoder" in name}
    head = {name: image.pop(name) for name in list(image) if name.startswith("head.")}
    words = {name: text.pop(name) for name in list(text) if name.startswith("preprocessor.")}
    return {
        **transformers_vision(image, "vision_model."),
        "vision_model.head.cls_token": head["head.cls_token"],
        "vision_model.head.k_proj.weight": head["head.k.weight"],
        "vision_model.head.v_proj.weight": head["head.v.weight"],
        "vision_model.head.output_proj.weight": head["head.linear.weight"],
        "vision_model.head.output_proj.bias": head["head.linear.bias"],
        **transformers_vision(text, "text_model."),
        "text_model.embeddings.token_embedding.weight": words["preprocessor.text_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": words["preprocessor.positional_embedding"],
        "visual_projection.weight": state["image_projector.weight"],
        "text_projection.weight": state["text_projector.weight"],
        "logit_scale": state["log_logit_scale"],
    }


def timm(state: State) -> dict[str, Tensor]:
    """The model of timm."""
    rules = (
        ("preprocessor.patchifier.", "patch_embed."), ("preprocessor.", ""), ("trunk.", ""),
        ("post_trunk_norm", "norm"), ("norm_1", "norm1"), ("norm_2", "norm2"),
        ("mlp.fc1", "mlp.fc1_g"), ("mlp.fc3", "mlp.fc1_x"),
    )  # fmt: skip
    converted = {}
    for name, value in state.items():
        for theirs, ours in rules:
            name = name.replace(theirs, ours)
        converted[name] = value
    return converted


def mlx(state: State) -> dict[str, Tensor]:
    """The model of MLX: channels last."""
    return {
        name: value.permute(0, 2, 3, 1).contiguous() if value.dim() == 4 else value for name, value in state.items()
    }


def flax(state: State, *, statistics: bool = True) -> bytes:
    """A file of flax, as the authors' converter gives it to ``flax.serialization``."""
    params: dict[str, Any] = {}
    for name, value in state.items():
        name = name.replace(".weight", ".kernel").replace("norm.kernel", "norm.scale")
        name = re.sub(r"norm_([12])\.kernel", r"norm_\1.scale", name).replace("blocks.", "layers_")
        name = name.replace("text_embedding.kernel", "text_embedding.embedding")
        if name.endswith("patchifier.proj.kernel"):
            value = value.permute(2, 3, 1, 0)
        elif name.endswith(".kernel") and value.dim() == 2:
            value = value.T
        *folders, last = name.split(".")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value.contiguous()
    tree: dict[str, Any] = {"params": params}
    if statistics:  # the converter adds them to every model
        tree["batch_stats"] = {"head": {"bn": {"mean": 0.0, "var": 1.0}}}
    packed: bytes = msgpack.packb(tree, default=flax_array)
    return packed


def flax_array(value: Tensor) -> msgpack.ExtType:
    """An array as an extension type of flax."""
    kind = str(value.dtype).removeprefix("torch.")
    return msgpack.ExtType(FLAX_ARRAY, msgpack.packb((list(value.shape), kind, value.numpy().tobytes())))


def training_code(state: State, head: State) -> dict[str, Tensor]:
    """AIM's trunk and prediction head, as the training code saves them; positions are computed by hand."""
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if "attn.qkv" in name:
            parts = zip("qkv", value.chunk(3), strict=True)
            converted |= {name.replace("attn.qkv", f"attn.{part}_proj"): third.contiguous() for part, third in parts}
        elif not name.startswith("head."):
            converted[name.replace("preprocessor.", "preprocessor.blocks.0.")] = value
    width = state["trunk.post_trunk_norm.weight"].shape[0]
    converted["preprocessor.blocks.0.pos_embed"] = _sincos(4, width)
    return converted | {f"head.{name}": value for name, value in head.items()}


def _sincos(side: int, width: int) -> Tensor:
    """``[1, side * side, width]``: sines and cosines of columns, then of rows."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows = []
    for row in range(side):
        for column in range(side):
            rows.append(torch.cat([f(at * frequency) for at in (column, row) for f in (torch.sin, torch.cos)]))
    return torch.stack(rows).float().unsqueeze(0)
