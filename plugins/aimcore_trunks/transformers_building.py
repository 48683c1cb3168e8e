"""Vision encoders of transformers from their configurations."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from aimcore.contracts.messages import did_you_mean, shown

USUAL_SIDE = 224
"""Side of the images of models whose configuration has none, in pixels."""
MAE = "vit_mae"
"""The type of models of MAE, which drop patches and sort the others."""


def config_of(text: str) -> Any:
    """Return the configuration of transformers in a JSON text.

    Raises:
        ValueError: the text is no such configuration; other configurations raise others of ``FAULTS``.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    values = json.loads(text)
    if not isinstance(values, dict) or "model_type" not in values:
        raise ValueError("it has no model_type")
    kind = values["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        known = did_you_mean(str(kind), list(CONFIG_MAPPING.keys()))
        raise ValueError(f"transformers {__version__} has no model_type {shown(kind)}{known}")
    return AutoConfig.for_model(**values)


def built_model(config: Any) -> nn.Module:
    """Build the encoder, without a pooler where the model can do without."""
    from transformers import AutoModel

    if config.model_type == MAE:
        config.mask_ratio = 0.0  # by default it drops three quarters of the patches, in evaluation too
    build: Any = AutoModel.from_config
    try:
        model: nn.Module = build(config, add_pooling_layer=False)
    except TypeError:
        model = build(config)
    return model


def read_on_meta(config: Any) -> tuple[int, Tensor]:
    """Return the height of an image that the model reads, and its output without numbers."""
    size = getattr(config, "image_size", None) or USUAL_SIDE
    height, width = (size, size) if isinstance(size, int) else size
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        model = built_model(config).eval()
        pixels_1CHW = torch.empty(1, int(getattr(config, "num_channels", 3)), height, width)
        return int(height), model(pixel_values=pixels_1CHW).last_hidden_state


def blocks_of(model: nn.Module, config: Any) -> tuple[str, ...]:
    """Return the names of the model's blocks, first to last; empty if they are not one list of blocks."""
    number, sizes = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_sizes", None)
    lists = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == number and not sizes
    ]
    return tuple(f"{lists[0]}.{index}" for index in range(number or 0)) if len(lists) == 1 else ()
