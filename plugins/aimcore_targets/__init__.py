"""Built-in targets."""

from collections.abc import Sequence

from aimcore import Target, hookimpl
from aimcore_targets.codes import Codes
from aimcore_targets.normalized_pixels import NormalizedPixels
from aimcore_targets.pixels import Pixels


@hookimpl
def targets() -> Sequence[type[Target]]:
    """The targets of Table 3a."""
    return [Codes, NormalizedPixels, Pixels]


__all__ = ["Codes", "NormalizedPixels", "Pixels"]
