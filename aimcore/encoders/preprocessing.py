"""The preprocessing of images that an encoder expects: from the files next to its weights, else as published.

Shape suffixes: C channels, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import attrs
import numpy as np
import torch
from loguru import logger
from PIL import Image
from torch import Tensor

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.images import PatchGrid, Preprocessing
from aimcore.contracts.layouts import FileLayout
from aimcore.contracts.messages import shown
from aimcore.contracts.trunks import Trunk
from aimcore.contracts.uncertainty import warn_uncertain
from aimcore.data.transforms import Crop, normalize, render_crop, render_evaluation, to_channels, to_unit
from aimcore.encoders.encoder_source import EncoderError
from aimcore.io.preprocessor_files import CLIP, IMAGENET, PREPROCESSOR_FILE, read_preprocessor, read_timm_config
from aimcore.io.weight_siblings import beside

PreprocessingName = Literal["clip", "imagenet"]
NAMED: Mapping[str, Preprocessing] = {"clip": CLIP, "imagenet": IMAGENET}
GIVEN = "chosen by the user"
"""What states a preprocessing that was given."""
ASSUMED = "assumed"
"""Begins the source of a preprocessing that nothing states."""
FEWEST_PATCHES, MOST_PATCHES = 112, 2**12
"""Areas at native resolution: the readme of the released models, and arXiv:2411.14402, section 2.4."""


@attrs.frozen
class KnownPreprocessing:
    """How images become pixels of an encoder, and how this is known."""

    preprocessing: Preprocessing
    image_size: int | None
    """Side of the square images, in pixels; None if images keep their size."""
    source: str
    """Where it is stated, such as the name of the file."""


def preprocessing_of(
    layout: FileLayout,
    config: Mapping[str, Any] | None,
    content: bytes | None,
    given: Preprocessing | PreprocessingName | None,
    image_size: int | None,
    url: str,
) -> KnownPreprocessing:
    """Return the preprocessing: as given, as the file next to the weights states, or as published, with a warning.

    Args:
        layout: layout of the weights.
        config: the ``config.json`` next to them.
        content: the ``preprocessor_config.json`` next to them.
        given: what the user gave.
        image_size: side of the images that the model was trained on, in pixels; None for any.
        url: the weights, for messages.

    Raises:
        UnreadableWeights: the file next to the weights is damaged, or states numbers that cannot be applied.
    """
    if given is not None:
        return KnownPreprocessing(as_given(given), image_size, GIVEN)
    stated = None if content is None else read_preprocessor(content, beside(url, PREPROCESSOR_FILE))
    if stated is not None:
        return KnownPreprocessing(
            stated.preprocessing, image_size and (stated.image_size or image_size), PREPROCESSOR_FILE
        )
    in_config = None if config is None else read_timm_config(config)
    if in_config is not None:
        return KnownPreprocessing(
            in_config.preprocessing, image_size and (in_config.image_size or image_size), "config.json"
        )
    known = f"no {PREPROCESSOR_FILE} is" if content is None else f"a {PREPROCESSOR_FILE} without a normalisation is"
    return _published(layout, config, image_size, f"{url}: {known} next to the weights")


def as_given(given: Preprocessing | PreprocessingName) -> Preprocessing:
    """Return the preprocessing that a user named or gave.

    Raises:
        InvalidValue: no preprocessing has this name.
    """
    if isinstance(given, str) and given not in NAMED:
        message = f"must be one of {', '.join(map(repr, NAMED))}, or a Preprocessing; got {shown(given)}"
        raise InvalidValue("load_encoder", [("preprocessing", message)])
    return NAMED[given] if isinstance(given, str) else given


def in_whole_patches(known: KnownPreprocessing, patch_size: int, url: str) -> KnownPreprocessing:
    """Return a preprocessing whose square images divide into patches.

    SigLIP's images of 384 px have patches of 14 px, and its convolution reads 27 x 27 of them. Here images are resized
    as before, and the centre of whole patches, 378 px, is cut out.
    """
    size, (mean, std, eval_crop) = known.image_size, known.preprocessing
    if size is None or size % patch_size == 0 or size < patch_size:
        return known
    side = size - size % patch_size
    logger.info("{}: of images of {} px, the centre of {} px is read: patches have {} px", url, size, side, patch_size)
    return KnownPreprocessing(Preprocessing(mean, std, eval_crop * side / size), side, known.source)


def _published(
    layout: FileLayout, config: Mapping[str, Any] | None, image_size: int | None, found: str
) -> KnownPreprocessing:
    candidates = layout.preprocessings(config) or (("unknown", IMAGENET),)
    source, first = candidates[0]
    if len(candidates) > 1:
        listed = "; ".join(
            f"{name}: mean {list(one.mean)}, std {list(one.std)}, crop {one.eval_crop:g}" for name, one in candidates
        )
        warn_uncertain(
            f"{found}, and {len(candidates)} normalisations are published for such files, so it is unknown which one "
            f"they expect: {listed}. The first is assumed; choose with preprocessing= (--preprocessing): "
            f"{', '.join(NAMED)}"
        )
        return KnownPreprocessing(first, image_size, f"{ASSUMED}: {source} state them")
    return KnownPreprocessing(first, image_size, source)


@attrs.frozen
class EncoderTransform:
    """Converts images to the pixels ``[C, H, W]`` that an encoder expects, as evaluation does.

    The short side is resized to ``ceil(image_size / eval_crop)``, bicubic with antialiasing, and the centre is cut
    out; then pixels are normalised. At native resolution an image keeps its aspect ratio: it is resized to the nearest
    multiple of the patch size on both sides, and to an area between 112 and 4096 patches if it has fewer or more.
    """

    preprocessing: Preprocessing
    image_size: int | None
    patch_size: int
    area: int | None = None
    """Number of patches that images of native resolution are resized to; None only bounds it."""

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """Convert a Pillow image (any mode) or a tensor ``uint8 [C, H, W]``; return ``float32 [C, H, W]``.

        Raises:
            EncoderError: it is something else, or has no pixels.
        """
        return self.normalized([self.rendered(image)])[0]

    def rendered(self, image: Image.Image | Tensor) -> Tensor:
        """Return the image resized and cropped, ``uint8 [C, H, W]``."""
        image_CHW = to_channels(_pixels(image), len(self.preprocessing.mean))
        if self.image_size is None:
            height, width = image_CHW.shape[1:]
            bounds = (FEWEST_PATCHES, MOST_PATCHES) if self.area is None else (self.area, self.area)
            size = native_size(height, width, self.patch_size, bounds)
            return render_crop(image_CHW, Crop(0, 0, height, width), size)
        return render_evaluation(image_CHW, self.image_size, self.preprocessing.eval_crop)

    def normalized(self, rendered: Sequence[Tensor]) -> Tensor:
        """Return rendered images of one size as pixels, ``float32 [B, C, H, W]``."""
        return normalize(to_unit(rendered), self.preprocessing.mean, self.preprocessing.std)


def transform_for(
    trunk: Trunk, own: EncoderTransform, *, image_size: int | None = None, area: int | None = None
) -> EncoderTransform:
    """Return the transform ``own`` with another size: squares, or whole images of at most ``area`` patches.

    Raises:
        InvalidValue: the trunk cannot read images of this size.
    """
    if area is not None and image_size is not None:
        raise InvalidValue("images", [("area", "cannot be combined with a size: it keeps the images' aspect ratios")])
    changes: dict[str, Any] = {"area": area, "image_size": None} if area is not None else {}
    if image_size is not None:
        changes["image_size"] = image_size
    transform: EncoderTransform = attrs.evolve(cast(Any, own), **changes)
    if area is not None and area < 1:
        raise InvalidValue("images", [("area", f"must be at least 1, got {area}")])
    # Learned positions that are interpolated for each batch suffice: the images of a batch have one grid.
    any_grid = "native" in trunk.capabilities or getattr(trunk, "interpolate", False)
    if transform.image_size is None and not any_grid:
        problem = f"trunk {trunk.name!r} reads squares of one size only: its positions are for that size"
        raise InvalidValue("images", [("area", problem)])
    if transform.image_size is not None:
        problems = list(size_problems(trunk, transform.image_size))
        if problems:
            raise InvalidValue("images", [("size", problem) for problem in problems])
    return transform


def size_problems(trunk: Trunk, size: int) -> Iterator[str]:
    """Yield why ``trunk`` cannot read square images whose sides are ``size`` pixels."""
    problems = list(side_problems(trunk, size))
    yield from problems
    if not problems:
        side = size // trunk.patch_size
        yield from (f"{size} px: {problem}" for problem in trunk.problems_with(PatchGrid(side, side)))


def side_problems(trunk: Trunk, size: int) -> Iterator[str]:
    """Yield that ``size`` pixels do not divide into patches of ``trunk``, with the nearest sizes that do."""
    side = trunk.patch_size
    if size < side or size % side:
        nearest = [side * number for number in (size // side, size // side + 1) if number > 0] or [side]
        yield f"must be a multiple of the patch size ({side}), such as {' or '.join(map(str, nearest))}; got {size}"


def native_size(
    height: int, width: int, patch_size: int, bounds: tuple[int, int] = (FEWEST_PATCHES, MOST_PATCHES)
) -> tuple[int, int]:
    """Return the height and width, in pixels, at which an image is read at native resolution.

    Args:
        height: height of the image, in pixels.
        width: width of the image, in pixels.
        patch_size: side of a patch, in pixels.
        bounds: fewest and most patches. Rounding may leave fewer, and never gives more.

    >>> native_size(300, 400, 14)
    (294, 406)
    """
    area = height * width / patch_size**2
    fewest, most = bounds
    scale = math.sqrt(min(max(area, fewest), most) / area)
    sides = [max(1, round(side * scale / patch_size)) for side in (height, width)]
    # Rounding may exceed the largest area by a row or a column; a very long image is cut to one.
    longest = sides.index(max(sides))
    sides[longest] = min(sides[longest], most // sides[1 - longest])
    return sides[0] * patch_size, sides[1] * patch_size


def _pixels(image: Image.Image | Tensor) -> Tensor:
    """``uint8 [C, H, W]``."""
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.dim() == 3:
        return image
    if not isinstance(image, Image.Image) or not all(image.size):
        got = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else shown(image)
        raise EncoderError(
            f"transform reads one Pillow image, or a tensor uint8 [C, H, W], of at least 1 x 1 px; got {got}. Open a "
            "file with PIL.Image.open, and stack the results of several images with torch.stack"
        )
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return torch.from_numpy(np.asarray(rgb).transpose(2, 0, 1).copy())
