"""The page of ``aimcore data inspect``: what a source holds, and pictures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Indices
from aimcore.report.small_pages import write_page
from aimcore.report.thumbnails import Thumbnail, thumbnails
from aimcore.running.inspection_record import inspection_record
from aimcore.running.source_inspection import SourceInspection
from aimcore.running.source_measurements import UNLABELLED

MOST_PICTURES = 1500
"""Largest number of pictures of classes on a page: about 10 MB."""
PER_CLASS, WITHOUT_CLASSES = 12, 60
"""Default number of pictures of each class, and of a source without classes."""
_MOST_GROUPS, _MOST_IN_GROUP, _MOST_BROKEN = 50, 8, 500
_ABOUT = {
    "smallest": "fewest pixels",
    "largest": "most pixels",
    "widest": "largest width to height",
    "tallest": "smallest width to height",
}


def write_inspection_page(
    found: SourceInspection,
    source: OpenSource,
    name: str,
    path: Path,
    *,
    per_class: int | None = None,
    num_workers: int = 0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> None:
    """Write the page. The pictures of a class are a random sample, which is the same in every call.

    Args:
        found: what the source holds.
        source: the pictures are read from it.
        name: what the source is called.
        path: the file.
        per_class: number of pictures of each class; fewer if there are very many classes.
        num_workers: processes that read pictures; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        CannotWrite: the system refused.
    """
    sheets, num_left_out = _sheets(found, per_class)
    groups = {"exact": found.exact[:_MOST_GROUPS], "near": found.near[:_MOST_GROUPS]}
    wanted = np.unique([place for places in _all_places(found, sheets, groups) for place in places]).astype(np.int64)
    by_index = thumbnails(source, found.measured.rows_n["index"][wanted], num_workers, progress)
    pictures = dict(zip(wanted.tolist(), by_index.values(), strict=True))
    values = {
        "name": name,
        "record": inspection_record(found),
        "broken": found.measured.broken[:_MOST_BROKEN],
        "extremes": [
            (what, _ABOUT[what], _entry(found, place, pictures)) for what, place in found.extremes().items()
        ],
        "sheets": [
            (title, count, [_entry(found, place, pictures) for place in places]) for title, count, places in sheets
        ],
        "num_classes_left_out": num_left_out,
        "groups": {kind: [_group(found, group, pictures) for group in shown] for kind, shown in groups.items()},
    }  # fmt: skip
    write_page("inspection.html", path, values)


def _sheets(found: SourceInspection, per_class: int | None) -> tuple[list[tuple[str, int, list[int]]], int]:
    """Return title, number of samples and positions to show of each class, and the number of classes left out."""
    label_n = found.measured.rows_n["label"]
    labels = np.unique(label_n).tolist()
    if per_class is None:
        per_class = WITHOUT_CLASSES if labels == [UNLABELLED] else PER_CLASS
    number = max(1, min(per_class, MOST_PICTURES // max(1, len(labels))))
    shown = labels[: MOST_PICTURES // number]
    sheets = []
    for label in shown:
        places_m = np.flatnonzero(label_n == label)
        chosen = np.random.default_rng(label + 1).permutation(places_m)[:number]
        title = "without a class" if label == UNLABELLED else found.name_of(label)
        sheets.append((title, len(places_m), sorted(chosen.tolist())))
    return sheets, len(labels) - len(shown)


def _all_places(
    found: SourceInspection,
    sheets: Sequence[tuple[str, int, list[int]]],
    groups: Mapping[str, Sequence[Indices]],
) -> Iterator[list[int]]:
    yield list(found.extremes().values())
    for _, _, places in sheets:
        yield places
    for shown in groups.values():
        for group in shown:
            yield group[:_MOST_IN_GROUP].tolist()


def _entry(found: SourceInspection, position: int, pictures: Mapping[int, Thumbnail | None]) -> Mapping[str, Any]:
    row, picture = found.measured.rows_n[position], pictures[position]
    label = int(row["label"])
    return {
        "identifier": found.measured.identifiers[position],
        "size": f"{row['width']} x {row['height']}",
        "label": "" if label == UNLABELLED else found.name_of(label),
        "thumbnail": picture,
    }


def _group(found: SourceInspection, group: Indices, pictures: Mapping[int, Thumbnail | None]) -> Mapping[str, Any]:
    shown = group[:_MOST_IN_GROUP].tolist()
    return {
        "number": len(group),
        "left_out": len(group) - len(shown),
        "other_labels": found.has_other_labels(group),
        "entries": [_entry(found, place, pictures) for place in shown],
    }
