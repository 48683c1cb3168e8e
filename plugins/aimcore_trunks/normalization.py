"""How the released encoders of AIMv2 expect pixels: two normalisations are published, and they contradict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from aimcore.contracts.images import Preprocessing

BESIDE = "preprocessor_config.json"
"""The file that released weights come with."""


class Normalization(NamedTuple):
    """Mean and standard deviation per channel, and the share of the short side that evaluation crops."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_crop: float

    def __str__(self) -> str:
        """As a recipe's fields."""
        return f"data.mean={list(self.mean)}, data.std={list(self.std)}, data.eval_crop={self.eval_crop:g}"


CLIP = Normalization((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1.0)
"""CLIP's, uncropped: in the released model files of AIMv2, and in timm's mirrors of them."""
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875)
"""ImageNet's, cropped: in the readme of AIMv2's authors and in their training code."""


def normalization_advice(
    names: Mapping[str, Any], pixels: Preprocessing, beside: Callable[[str], bytes | None]
) -> Iterator[str]:
    """Yield a warning where weights of a released AIMv2 encoder may be read with another normalisation than theirs.

    Args:
        names: entries of the file of weights.
        pixels: what the run does with pixels.
        beside: the content of another file in the same folder.
    """
    if not _is_released_aimv2(names):
        return
    used, content = Normalization(*pixels), beside(BESIDE)
    stated = None if content is None else _stated(content)
    if stated is None:
        why = f"there is no {BESIDE} beside" if content is None else f"the {BESIDE} beside states none"
        yield (
            f"two normalisations are published for AIMv2's released encoders, and {why} these weights to say which is "
            f"theirs. The model files have CLIP's ({CLIP}), the authors' readme and training code ImageNet's "
            f"({IMAGENET}). This run has {used}"
        )
    elif not _alike(stated, used):
        yield (
            f"the {BESIDE} beside these weights has {stated}, and this run has {used}. The authors' readme and "
            f"training code have ImageNet's ({IMAGENET}): take the one that these weights were trained with"
        )


def _is_released_aimv2(names: Mapping[str, Any]) -> bool:
    """Whether entries are in the authors' layout, with the third matrix of SwiGLU, which AIM lacks."""
    return any(name.endswith(".mlp.fc3.weight") for name in names)


def _stated(content: bytes) -> Normalization | None:
    """What a ``preprocessor_config.json`` says; None where it says nothing."""
    try:
        config = json.loads(content)
        mean, std = (tuple(float(value) for value in config[f"image_{name}"]) for name in ("mean", "std"))
        return Normalization(mean, std, _crop(config))
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def _crop(config: Mapping[str, Any]) -> float:
    """The side of the crop over the short side; 1 where nothing is cropped."""
    if not config.get("do_center_crop"):
        return 1.0
    return min(1.0, float(config["crop_size"]["height"]) / float(config["size"]["shortest_edge"]))


def _alike(one: Normalization, other: Normalization) -> bool:
    numbers = [(*values.mean, *values.std, values.eval_crop) for values in (one, other)]
    pairs = zip(*numbers, strict=False)
    return len(one.mean) == len(other.mean) and all(abs(left - right) < 1e-3 for left, right in pairs)
