"""Built-in trunks."""

from collections.abc import Sequence

from aimcore import Trunk, hookimpl
from aimcore_trunks.released import from_released
from aimcore_trunks.sizes import aim, aimv2
from aimcore_trunks.vit import ViT


@hookimpl
def trunks() -> Sequence[type[Trunk]]:
    """The Vision Transformer of both papers."""
    return [ViT]


__all__ = ["ViT", "aim", "aimv2", "from_released"]
