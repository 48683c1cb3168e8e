"""What the readers of a layout of files can express of a model, and the settings that they are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aimcore import Preprocessing, Trunk
from aimcore.contracts.layouts import StoredModel, Tensors
from aimcore.io.preprocessor_files import PREPROCESSOR_FILE, preprocessor_config
from aimcore_objectives import Contrastive
from aimcore_trunks import ViT

MASK_TOKEN = "trunk.mask_token.token"
"""A weight that no image without masks is read with."""
DEFAULT_SIDE = 224
"""Side of the images in configs of models that read any size."""
MAX_SCALE = 100.0
"""Bound of the scale of similarities, in CLIP's loss and in the released LiT model."""


def without_mask_token(state: Tensors) -> dict[str, Any]:
    """Return ``state`` without the token that replaces masked patches: other libraries mask nothing."""
    return {name: value for name, value in state.items() if name != MASK_TOKEN}


def aim_problems(trunk: Trunk, eps: float) -> Iterator[str]:
    """Yield how ``trunk`` differs from the form of AIM's released encoders."""
    yield from _form_problems(trunk, "AIM", "layer_norm", "gelu", eps)
    if isinstance(trunk, ViT) and trunk.positions != "sincos":
        yield "its positions are learned, and those of AIM are fixed"


def aimv2_problems(trunk: Trunk, eps: float | None = None, *, native: bool = True) -> Iterator[str]:
    """Yield how ``trunk`` differs from the form of AIMv2's released encoders.

    Args:
        trunk: the trunk.
        eps: the epsilon of norms that the readers have; None if the config states it.
        native: whether the readers have fixed positions, for native resolution.
    """
    yield from _form_problems(trunk, "AIMv2", "rms_norm", "swiglu", eps)
    if isinstance(trunk, ViT):
        if trunk.grid is not None and trunk.grid[0] != trunk.grid[1]:
            yield f"its learned positions are for {trunk.grid[0]} x {trunk.grid[1]} patches, and only squares are read"
        if trunk.positions == "sincos" and not native:
            yield "its positions are fixed (native resolution), and this library has learned ones only"


def tower_problems(model: StoredModel, eps: float) -> Iterator[str]:
    """Yield how the towers around the trunk differ from those of AIMv2's LiT model."""
    objective, trunk = model.objective, model.trunk
    if not isinstance(objective, Contrastive):
        yield "it has no image and text tower"
        return
    if objective.loss != "softmax":
        yield f"its loss is {objective.loss!r}, and the bias of its similarities has no place"
    if isinstance(trunk, ViT) and objective.num_pool_heads != trunk.num_heads:
        yield f"its attention pool has {objective.num_pool_heads} heads and its trunk {trunk.num_heads}: must be equal"
    if objective.text_tower.norm_eps != eps:
        yield f"the epsilon of its text tower is {objective.text_tower.norm_eps:g}, and here all norms have {eps:g}"
    if objective.tokenizer.end_id is None:
        yield f"its tokenizer {objective.tokenizer.name!r} has no end token, at which texts are read"


def _form_problems(trunk: Trunk, name: str, norm: str, ffn: str, eps: float | None) -> Iterator[str]:
    if not isinstance(trunk, ViT):
        yield f"its trunk is {trunk.name!r}, and not a 'vit' in the form of {name}"
        return
    if (trunk.norm, trunk.ffn) != (norm, ffn):
        yield f"its norm is {trunk.norm!r} and its ffn {trunk.ffn!r}, and {name} has {norm!r} and {ffn!r}"
    elif eps is not None and trunk.norm_eps != eps:
        yield f"its norms have the epsilon {trunk.norm_eps:g}, and its readers have {eps:g}"
    if trunk.attention_bias or trunk.ffn_bias:
        yield f"its attention or ffn has biases, and {name} has none"
    if trunk.num_extra:
        yield f"it has {trunk.num_extra} extra tokens (class token, registers), and {name} has none"


def vit_in(model: StoredModel) -> ViT:
    """Return the trunk of a model without problems."""
    assert isinstance(model.trunk, ViT), "a layout refuses other trunks"
    return model.trunk


def with_preprocessor(
    config: Mapping[str, Any], model: StoredModel, preprocessing: Preprocessing | None
) -> dict[str, Mapping[str, Any]]:
    """Return ``config.json``, and ``preprocessor_config.json`` if the preprocessing is known."""
    files: dict[str, Mapping[str, Any]] = {"config.json": config}
    if preprocessing is not None:
        files[PREPROCESSOR_FILE] = preprocessor_config(preprocessing, model.image_size)
    return files


def without_origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of transformers without types of numbers, and without the folder that it was read from."""
    parts = {name: without_origin(part) if isinstance(part, Mapping) else part for name, part in config.items()}
    return {name: part for name, part in parts.items() if name not in ("dtype", "torch_dtype", "_name_or_path")}


def authors_settings(model: StoredModel, *, aimv2: bool) -> dict[str, Any]:
    """Return the arguments of the constructors in the authors' code."""
    trunk = vit_in(model)
    settings: dict[str, Any] = {} if model.image_size is None else {"img_size": model.image_size}
    settings |= {
        "patch_size": trunk.patch_size,
        "embed_dim": trunk.width,
        "num_blocks": trunk.depth,
        "num_heads": trunk.num_heads,
        "num_channels": trunk.num_channels,
        "mlp_hidden_dim": trunk.hidden_width,
    }
    return settings | ({"pos_embed_type": "absolute" if trunk.positions == "learned" else "sincos"} if aimv2 else {})


def authors_towers(model: StoredModel) -> dict[str, Any]:
    """Return the arguments of the constructor of the LiT model in the authors' code."""
    trunk, objective = vit_in(model), model.objective
    assert isinstance(objective, Contrastive), "a layout refuses other objectives"
    tower = objective.text_tower
    return {
        "img_size": model.image_size or DEFAULT_SIDE,
        "patch_size": trunk.patch_size,
        "projection_dim": objective.embedding_width,
        "vision_embed_dim": trunk.width,
        "vision_mlp_hidden_dim": trunk.hidden_width,
        "vision_num_blocks": trunk.depth,
        "vision_num_heads": trunk.num_heads,
        "text_embed_dim": tower.width,
        "text_mlp_embed_dim": tower.hidden_width,
        "text_num_blocks": tower.depth,
        "text_num_heads": tower.num_heads,
        "vocab_size": objective.tokenizer.vocabulary_size,
        "max_context_length": objective.context_length,
        "eos_token_id": objective.tokenizer.end_id,
        "max_logit_scale": MAX_SCALE,
    }


def transformers_vision_settings(model: StoredModel, *, head: bool) -> dict[str, Any]:
    """Return the config of the vision model in transformers."""
    trunk = vit_in(model)
    return {
        "model_type": "aimv2_vision_model",
        "hidden_size": trunk.width,
        "intermediate_size": trunk.hidden_width,
        "num_hidden_layers": trunk.depth,
        "num_attention_heads": trunk.num_heads,
        "num_channels": trunk.num_channels,
        "image_size": DEFAULT_SIDE if trunk.positions == "sincos" else vit_side(trunk),
        "patch_size": trunk.patch_size,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rms_norm_eps": trunk.norm_eps,
        "qkv_bias": False,
        "mlp_bias": False,
        "use_head": head,
        "is_native": trunk.positions == "sincos",
    }


def transformers_towers(model: StoredModel) -> dict[str, Any]:
    """Return the config of the two-tower model in transformers."""
    objective = model.objective
    assert isinstance(objective, Contrastive), "a layout refuses other objectives"
    tower = objective.text_tower
    text = {
        "model_type": "aimv2_text_model",
        "vocab_size": objective.tokenizer.vocabulary_size,
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden_width,
        "num_hidden_layers": tower.depth,
        "num_attention_heads": tower.num_heads,
        "max_position_embeddings": objective.context_length,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "eos_token_id": objective.tokenizer.end_id,
        "rms_norm_eps": tower.norm_eps,
        "qkv_bias": False,
        "mlp_bias": False,
    }
    return {
        "architectures": ["Aimv2Model"],
        "model_type": "aimv2",
        "dtype": "float32",
        "projection_dim": objective.embedding_width,
        "max_logit_scale": MAX_SCALE,
        "vision_config": transformers_vision_settings(model, head=True),
        "text_config": text,
    }


def vit_side(trunk: ViT) -> int:
    """Return the side of the square images that learned positions are for, in pixels."""
    return (trunk.grid or (0, 0))[0] * trunk.patch_size
