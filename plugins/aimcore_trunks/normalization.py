"""The normalisation of pixels that AIMv2's released encoders expect: two are published, and they contradict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from aimcore.contracts.images import Preprocessing

CONFIG = "preprocessor_config.json"
"""The file in the folder of released weights that states their normalisation."""


class Normalization(NamedTuple):
    """Mean and standard deviation per channel, and the side of the evaluation crop as a share of the shorter side."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_crop: float

    def __str__(self) -> str:
        """Format as fields of a recipe."""
        return f"data.mean={list(self.mean)}, data.std={list(self.std)}, data.eval_crop={self.eval_crop:g}"


CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1.0)
"""CLIP's, without a crop: in the released model files of AIMv2, and in timm's mirrors of them."""
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875)
"""ImageNet's, with a crop: in the readme of AIMv2's authors and in their training code."""


def normalization_advice(
    names: Mapping[str, Any], pixels: Preprocessing, read_sibling: Callable[[str], bytes | None]
) -> Iterator[str]:
    """Yield a warning if a run may normalise pixels differently from the released AIMv2 encoder that it starts from.

    Args:
        names: entries of the file of weights.
        pixels: the preprocessing of the run.
        read_sibling: returns the content of another file in the folder of the weights, or None.
    """
    if not _is_released_aimv2(names):
        return
    used, content = Normalization(*pixels), read_sibling(CONFIG)
    expected = None if content is None else read_config(content)
    if expected is None:
        why = f"has no {CONFIG}" if content is None else f"has a {CONFIG} without a normalisation"
        yield (
            f"two normalisations are published for AIMv2's released encoders, and the folder of these weights {why}, "
            f"so it is unknown which one they expect. The model files use CLIP's ({CLIP}), the authors' readme and "
            f"training code use ImageNet's ({IMAGENET}). This run uses {used}"
        )
    elif not _close(expected, used):
        yield (
            f"the {CONFIG} in the folder of these weights has {expected}, but this run uses {used}. The authors' "
            f"readme and training code use ImageNet's ({IMAGENET}). Use the one that these weights were trained with"
        )


def _is_released_aimv2(names: Mapping[str, Any]) -> bool:
    """Return whether the entries are of AIMv2 in the layout of its authors, transformers or timm.

    They have the third matrix of SwiGLU, which AIM lacks.
    """
    return any(name.endswith((".mlp.fc3.weight", ".ffn.up_proj.weight", ".mlp.fc1_x.weight")) for name in names)


def read_config(content: bytes) -> Normalization | None:
    """Return the normalisation in a ``preprocessor_config.json``, or None if it has none."""
    try:
        config = json.loads(content)
        mean, std = (tuple(float(value) for value in config[f"image_{name}"]) for name in ("mean", "std"))
        return Normalization(mean, std, _crop(config))
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def _crop(config: Mapping[str, Any]) -> float:
    """Return the side of the crop over the shorter side of the image, or 1 if nothing is cropped."""
    if not config.get("do_center_crop"):
        return 1.0
    return min(1.0, float(config["crop_size"]["height"]) / float(config["size"]["shortest_edge"]))


def _close(one: Normalization, other: Normalization) -> bool:
    numbers = [(*values.mean, *values.std, values.eval_crop) for values in (one, other)]
    pairs = zip(*numbers, strict=False)
    return len(one.mean) == len(other.mean) and all(abs(left - right) < 1e-3 for left, right in pairs)
