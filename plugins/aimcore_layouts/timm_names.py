"""The names and arguments of AIMv2's models in timm."""

from __future__ import annotations

from typing import Any

from aimcore import Preprocessing
from aimcore.contracts.layouts import StoredModel
from aimcore_layouts.expressible import vit_in, vit_side
from aimcore_trunks import ViT

_SIZES = {(1024, 24, 8, 2816): "large", (1536, 24, 12, 4096): "huge",
          (2048, 24, 16, 5632): "1b", (3072, 24, 24, 8192): "3b"}  # fmt: skip
_SIDES = (224, 336, 448)
_BASE = "aimv2_large_patch14_224"
"""The model whose arguments are changed for a ViT of a size that timm does not name."""


def architecture(trunk: ViT) -> tuple[str, dict[str, Any]]:
    """Return the name of timm's model, and the arguments that make it this trunk; none for a released size.

    >>> architecture(ViT(width=1024, depth=24, num_heads=8, ffn_width=2816, positions="learned", grid=(24, 24)))
    ('aimv2_large_patch14_336', {})
    """
    size = _SIZES.get((trunk.width, trunk.depth, trunk.num_heads, trunk.hidden_width))
    side = vit_side(trunk)
    if size is not None and side in _SIDES and (trunk.patch_size, trunk.num_channels) == (14, 3):
        return f"aimv2_{size}_patch14_{side}", {}
    return _BASE, {
        "img_size": side,
        "patch_size": trunk.patch_size,
        "in_chans": trunk.num_channels,
        "embed_dim": trunk.width,
        "depth": trunk.depth,
        "num_heads": trunk.num_heads,
        "mlp_ratio": ratio_of(trunk.hidden_width, trunk.width),
    }


def ratio_of(hidden: int, width: int) -> float:
    """Return a ratio from which timm computes the hidden width, ``int(width * ratio)``.

    >>> int(1536 * ratio_of(4096, 1536))
    4096
    """
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def timm_config(model: StoredModel, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """Return the ``config.json`` of a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens."""
    trunk = vit_in(model)
    name, arguments = architecture(trunk)
    side = vit_side(trunk)
    stated: dict[str, Any] = {
        "tag": "",
        "custom_load": False,
        "input_size": [trunk.num_channels, side, side],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_mode": "center",
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    if preprocessing is not None:
        mean, std, crop = preprocessing
        stated |= {"crop_pct": crop, "mean": list(mean), "std": list(std)}
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": trunk.width,
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": stated,
    }
