"""The page of a search: the query, and the nearest images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from aimcore.encoders.search import Neighbour
from aimcore.report.small_pages import picture_url, write_page
from aimcore.running.searching import Found

_SIDE = 256


def write_search_page(found: Found, url: str, path: Path) -> None:
    """Write the page of a search in the embeddings at ``url``.

    Raises:
        CannotWrite: the system refused.
    """
    query = None if found.picture_CHW is None else picture_url(_displayable(found.picture_CHW), _SIDE)
    results = [_result(number, one, found) for number, one in enumerate(found.neighbours, 1)]
    values = {"query": found.query, "query_picture": query, "results": results, "url": url}
    write_page("search.html", path, values)


def _result(number: int, one: Neighbour, found: Found) -> dict[str, Any]:
    picture = found.pictures.get(one.row)
    return {
        "number": number,
        "picture": None if picture is None else picture_url(_displayable(picture), _SIDE),
        "identifier": one.identifier,
        "label": label_name(one, found.class_names),
        "similarity": f"{one.similarity:.3f}",
    }


def label_name(one: Neighbour, class_names: Sequence[str]) -> str:
    """Return the class of a neighbour by its name, or by its number; empty without a label."""
    if one.label is None:
        return ""
    return class_names[one.label] if one.label < len(class_names) else str(one.label)


def _displayable(image_CHW: Tensor) -> npt.NDArray[np.uint8]:
    """Return ``[H, W, 3]``; grey for images of one or two channels."""
    image = image_CHW[:3] if image_CHW.shape[0] >= 3 else image_CHW[:1].expand(3, -1, -1)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
