"""Built-in orderings."""

from collections.abc import Sequence

from aimcore import Ordering, hookimpl
from aimcore_orderings.checkerboard import Checkerboard
from aimcore_orderings.fixed_random import FixedRandom
from aimcore_orderings.raster import Raster
from aimcore_orderings.spiral import Spiral


@hookimpl
def orderings() -> Sequence[type[Ordering]]:
    """The four patterns of Table 3b."""
    return [Raster, Spiral, Checkerboard, FixedRandom]


__all__ = ["Checkerboard", "FixedRandom", "Raster", "Spiral"]
