"""The built-in sources of images."""

from collections.abc import Sequence

from aimcore import Source, hookimpl
from aimcore_sources.bundled import BundledFashionMNIST
from aimcore_sources.fashion_mnist import FashionMNIST
from aimcore_sources.image_folder import ImageFolder

__all__ = ["BundledFashionMNIST", "FashionMNIST", "ImageFolder"]


@hookimpl
def sources() -> Sequence[type[Source]]:
    """Every built-in source."""
    return [BundledFashionMNIST, FashionMNIST, ImageFolder]
