"""Built-in orderings."""

from collections.abc import Sequence

from aimcore import Ordering, hookimpl
from aimcore_orderings.checkerboard import Checkerboard
from aimcore_orderings.column_raster import ColumnRaster
from aimcore_orderings.fixed_random import FixedRandom
from aimcore_orderings.raster import Raster
from aimcore_orderings.reversed import Reversed
from aimcore_orderings.spiral import Spiral


@hookimpl
def orderings() -> Sequence[type[Ordering]]:
    """The four patterns of Table 3b, and two more."""
    return [Raster, Spiral, Checkerboard, FixedRandom, ColumnRaster, Reversed]


__all__ = ["Checkerboard", "ColumnRaster", "FixedRandom", "Raster", "Reversed", "Spiral"]
