"""The page of ``aimcore data inspect``: what a source holds, and pictures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from torch import Tensor

from aimcore.contracts.errors import UnreadableSample
from aimcore.contracts.messages import shortened
from aimcore.contracts.sources import OpenSource
from aimcore.data.perceptual_hash import Indices
from aimcore.data.streaming import stream
from aimcore.report.small_pages import picture_url, write_page
from aimcore.running.inspection_record import inspection_record
from aimcore.running.source_inspection import SourceInspection
from aimcore.running.source_measurements import UNLABELLED

MOST_PICTURES = 1500
"""Largest number of pictures of classes on a page: about 10 MB."""
PER_CLASS, WITHOUT_CLASSES = 12, 60
"""Default number of pictures of each class, and of a source without classes."""
_MOST_GROUPS, _MOST_IN_GROUP, _MOST_BROKEN = 50, 8, 500
_SIDE, _LONGEST_CAPTION = 160, 120
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
    pictures = _pictures(source, found, wanted, num_workers, progress)
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


@attrs.frozen(eq=False)
class _Thumbnails:
    """Loads picture ``number``; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    indices_m: Indices

    def __getitem__(self, number: int) -> tuple[str, str] | None:
        """Return the URL of the picture and its captions; None if it can no longer be read."""
        try:
            sample = self.source.read(int(self.indices_m[number]))
        except UnreadableSample:
            return None
        captions = [f"{kind}: {texts[0]}" for kind, texts in sample.captions.items() if texts]
        return _url(sample.image), shortened("; ".join(captions), _LONGEST_CAPTION)


def _url(image_CHW: Tensor) -> str:
    image = image_CHW[:3] if image_CHW.shape[0] >= 3 else image_CHW[:1].expand(3, -1, -1)
    return picture_url(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), _SIDE)


def _pictures(
    source: OpenSource,
    found: SourceInspection,
    places_m: Indices,
    num_workers: int,
    progress: Callable[[str, int, int], None],
) -> Mapping[int, tuple[str, str] | None]:
    """Return picture and captions by position."""
    loader = _Thumbnails(source, found.measured.rows_n["index"][places_m])
    pictures = {}
    with closing(stream(loader, range(len(places_m)), num_workers, 8)) as loaded:
        for number, (place, picture) in enumerate(zip(places_m.tolist(), loaded, strict=True), 1):
            pictures[place] = picture
            progress("drawing", number, len(places_m))
    return pictures


def _entry(found: SourceInspection, position: int, pictures: Mapping[int, tuple[str, str] | None]) -> Mapping[str, Any]:
    row, picture = found.measured.rows_n[position], pictures[position]
    label = int(row["label"])
    return {
        "identifier": found.measured.identifiers[position],
        "size": f"{row['width']} x {row['height']}",
        "label": "" if label == UNLABELLED else found.name_of(label),
        "picture": picture and picture[0],
        "captions": picture[1] if picture else "",
    }


def _group(
    found: SourceInspection, group: Indices, pictures: Mapping[int, tuple[str, str] | None]
) -> Mapping[str, Any]:
    shown = group[:_MOST_IN_GROUP].tolist()
    return {
        "number": len(group),
        "left_out": len(group) - len(shown),
        "other_labels": found.has_other_labels(group),
        "entries": [_entry(found, place, pictures) for place in shown],
    }
