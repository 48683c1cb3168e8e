"""Stored embeddings as readers see them, whatever the format of the file.

Lower-case n is the number of images, D the width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import shortened, shown
from aimcore.recipe.difference import differing_fields, in_words

NO_LABEL = -1
_MOST_COMPARED = 32
"""Reading so many images again takes less than a second, and shows that files were added or removed."""


class OtherEmbeddings(AimcoreError):
    """The destination holds something else: other features, or no features at all."""


@attrs.frozen(eq=False)
class EmbeddedRows:
    """The rows of a part, of one length."""

    features: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    grids: npt.NDArray[np.int32]
    readable: npt.NDArray[np.bool_]
    identifiers: Sequence[str]


class StoredEmbeddings(Protocol):
    """Complete embeddings of a source: row i is image i."""

    @property
    def url(self) -> str:
        """Where they are."""
        ...

    @property
    def num_rows(self) -> int:
        """n, the number of images."""
        ...

    @property
    def width(self) -> int | None:
        """D, if an image has one vector; None if its tokens are stored."""
        ...

    @property
    def description(self) -> Mapping[str, Any]:
        """What the features depend on."""
        ...

    @property
    def about(self) -> Mapping[str, Any]:
        """Further plain values: the encoder as it was named, the source, its class names."""
        ...

    def some_names(self) -> Mapping[int, str]:
        """Return the names of at most 32 images by row, spread over the rows that are stored."""
        ...

    def parts(self) -> Iterator[EmbeddedRows]:
        """Yield the rows of every part in order; memory holds one part.

        Raises:
            DataNotFound: a part is damaged.
        """
        ...


def spread_over(number: int) -> list[int]:
    """Return at most 32 of ``number`` places, evenly spread, with the first and the last one.

    >>> spread_over(3), spread_over(1000)[:3], spread_over(0)
    ([0, 1, 2], [0, 32, 64], [])
    """
    return [int(place) for place in np.unique(np.linspace(0, number - 1, min(number, _MOST_COMPARED)).round())]


def other_embeddings(url: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> OtherEmbeddings:
    """Return the error of a place that holds embeddings of another description."""
    named = [
        f"{place.path} ({_words(place.values[0])} there, {_words(place.values[1])} here)"
        for place in differing_fields([there, here])
    ]
    return OtherEmbeddings(
        f"{shown(url)} holds other embeddings, which cannot be continued: {', '.join(named)}. Give the same settings, "
        "or another place"
    )


def _words(value: Any) -> str:
    return shortened(in_words(value))
