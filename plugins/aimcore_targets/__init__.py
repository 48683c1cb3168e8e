"""Built-in targets."""

from collections.abc import Sequence

from aimcore import Target, hookimpl
from aimcore_targets.normalized_pixels import NormalizedPixels
from aimcore_targets.pixels import Pixels


@hookimpl
def targets() -> Sequence[type[Target]]:
    """The pixel targets of Table 3a."""
    return [NormalizedPixels, Pixels]


__all__ = ["NormalizedPixels", "Pixels"]
