"""Pictures that are no part of a source: found by path, folder or URL, decoded, and rendered as in evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from torch import Tensor

from aimcore.data.decoding import decode
from aimcore.data.rendering import Native
from aimcore.data.transforms import normalize, render_evaluation, to_channels, to_unit
from aimcore.errors import UnreadableSample
from aimcore.experiment import Data
from aimcore.locations import file_system
from aimcore.patches import images_of
from aimcore.values import Images

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files of a folder that are taken for pictures."""
# What file systems raise for what is missing; a lacking package is an ImportError.
_UNREADABLE = (OSError, ValueError, ImportError)


def find_pictures(places: Sequence[str]) -> Iterator[str]:
    """Each place in turn; of a folder, the pictures that are in it, by name.

    Args:
        places: paths, folders, or URLs that fsspec knows.
    """
    for place in places:
        try:
            files, path = file_system(place)
            inside = files.ls(path, detail=False) if files.isdir(path) else None
        except _UNREADABLE:
            inside = None  # reading it tells why
        if inside is None:
            yield place
        else:
            names = sorted(PurePosixPath(name).name for name in inside)
            yield from (
                f"{place.rstrip('/')}/{name}" for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES
            )


def read_picture(place: str) -> tuple[bytes, Tensor]:
    """A picture's file, and its pixels as RGB ``uint8 [3, H, W]``, upright as its EXIF orientation says.

    Raises:
        UnreadableSample: it is not there, no picture, or damaged.
    """
    try:
        files, path = file_system(place)
        content: bytes = files.cat_file(path)
    except _UNREADABLE as cause:
        raise UnreadableSample(place, f"{type(cause).__name__}: {cause}") from cause
    return content, decode(content, place)


def render_pictures(pictures: Sequence[Tensor], data: Data, patch_size: int, area: int | None = None) -> Images:
    """Pictures as validation renders its images: resized, cropped at the centre, normalised.

    Args:
        pictures: RGB ``uint8 [3, H, W]``.
        data: gives size and statistics.
        patch_size: in pixels.
        area: keep each one's aspect ratio instead, crop nothing, and fit it in so many patches, filled up as in
            training at native resolution.
    """
    channels = [to_channels(picture, len(data.mean)) for picture in pictures]
    if area is not None:
        rendering = Native(data, patch_size, data.native is None or data.native.padding == "image")
        return rendering.fitted(channels, area).images
    unit_BCHW = to_unit([render_evaluation(picture, data.image_size, data.eval_crop) for picture in channels])
    return images_of(normalize(unit_BCHW, data.mean, data.std), patch_size)
