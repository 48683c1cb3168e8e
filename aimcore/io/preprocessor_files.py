"""The preprocessing of images that the files next to weights state: ``preprocessor_config.json``, and timm's config.

Two normalisations are published for AIMv2's encoders, and they contradict: CLIP's, in the released model files and in
timm, and ImageNet's, in the readme of AIMv2's authors and in their training code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from aimcore.contracts import limits
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.messages import shown
from aimcore.io.weight_siblings import UnreadableWeights, json_object

PREPROCESSOR_FILE = "preprocessor_config.json"
CONFIG_FILE = "config.json"

CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1.0)
"""CLIP's, without a crop: in the released model files of AIMv2, and in timm's mirrors of them."""
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875)
"""ImageNet's, with a crop: in the readme of AIMv2's authors, in their training code, and in AIM's code."""
_BICUBIC = 3
"""Number of the interpolation in Pillow."""
_PIXELS = ("image_mean", "image_std", "size", "crop_size")
_CHOOSE = ". Correct the file, or choose with preprocessing= (--preprocessing)"
_FAULTS = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, AttributeError)


@attrs.frozen
class StatedPreprocessing:
    """What a file states."""

    preprocessing: Preprocessing
    image_size: int | None
    """Side of the square images, in pixels; None if images keep their size."""


def read_preprocessor(content: bytes, url: str) -> StatedPreprocessing | None:
    """Read a ``preprocessor_config.json`` of transformers; None if it states no normalisation.

    Raises:
        UnreadableWeights: it is damaged, or states numbers that cannot be applied.
    """
    config = json_object(content, url) or {}
    if config.get("image_mean") is None and config.get("image_std") is None:
        return None
    stated = _stated(config)
    if stated is None:
        numbers = ", ".join(f"{name} {shown(config[name])}" for name in _PIXELS if config.get(name) is not None)
        raise UnreadableWeights(url, f"{numbers} cannot be applied to images of 1 or 3 channels{_CHOOSE}", "JSON")
    return stated


def _stated(config: Mapping[str, Any]) -> StatedPreprocessing | None:
    try:
        crop = _side(config.get("crop_size")) if config.get("do_center_crop") else None
        resized = _side(config.get("size")) if config.get("do_resize", True) else None
        share = 1.0 if crop is None or resized is None else min(1.0, crop / resized)
        stated = Preprocessing(_numbers(config["image_mean"]), _numbers(config["image_std"]), share)
        return _checked(StatedPreprocessing(stated, crop or resized))
    except _FAULTS:
        return None


def preprocessor_config(preprocessing: Preprocessing, image_size: int | None) -> dict[str, Any]:
    """Return the content of a ``preprocessor_config.json``: the inverse of :func:`read_preprocessor`.

    transformers resizes the short side to ``ceil(image_size / eval_crop)``, bicubic, and cuts out the centre. Without
    an image size it leaves the size of an image alone.
    """
    mean, std, eval_crop = preprocessing
    sides = None if image_size is None else {"height": image_size, "width": image_size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": len(mean) == 3,
        "do_resize": image_size is not None,
        "size": {"shortest_edge": 224 if image_size is None else math.ceil(image_size / eval_crop)},
        "resample": _BICUBIC,
        "do_center_crop": image_size is not None,
        "crop_size": sides or {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def read_timm_config(config: Mapping[str, Any]) -> StatedPreprocessing | None:
    """Read the preprocessing in a ``config.json`` of timm; None if it states none."""
    try:
        stated = config.get("pretrained_cfg", config)
        size = stated.get("input_size")
        preprocessing = Preprocessing(
            _numbers(stated["mean"]), _numbers(stated["std"]), float(stated.get("crop_pct", 1.0))
        )
        return _checked(StatedPreprocessing(preprocessing, None if size is None else int(size[-1])))
    except _FAULTS:
        return None


def _checked(stated: StatedPreprocessing) -> StatedPreprocessing | None:
    """Return the preprocessing if it can be applied."""
    mean, std, crop = stated.preprocessing
    numbers_fit = len(mean) == len(std) in (1, 3) and all(map(math.isfinite, mean)) and all(0 < s < 1e6 for s in std)
    size_fits = stated.image_size is None or 1 <= stated.image_size <= limits.IMAGE_SIDE
    return stated if numbers_fit and size_fits and 0.01 <= crop <= 1 else None


def _side(size: Any) -> int | None:
    """Return the side that transformers writes as a number, ``shortest_edge``, or height and width."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return None if size is None else int(size)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
