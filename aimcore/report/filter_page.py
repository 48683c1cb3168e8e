"""The page of ``aimcore data filter``: what was removed, next to what it is like, and samples around the thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.sources import OpenSource
from aimcore.report.small_pages import write_page
from aimcore.report.thumbnails import Thumbnail, thumbnails
from aimcore.running.filter_report import REPORT, FilterChoice
from aimcore.running.filter_steps import BY_EMBEDDING, BY_HASH, DUPLICATE, LOW_SCORE
from aimcore.running.image_sources import source_named

MOST_SHOWN = 24
"""Largest number of samples, or of pairs, of each section."""
_NO_DETAILS = {"size": "", "label": ""}
Entry = Mapping[str, Any]
"""A sample as a report describes it."""


@attrs.frozen
class _Section:
    """Samples of one kind; pairs if they are like something."""

    name: str
    title: str
    about: str
    total: int | None
    """How many there are; None if the report names a few only."""
    entries: Sequence[Entry]
    """Those that are shown."""
    value: str
    """Name of the number that decided."""
    is_kept: bool = False


def page_of(report: Path) -> Path:
    """Return where the page of a report is: ``train.tar.filter.html``."""
    return report.with_name(report.name.removesuffix(REPORT) + ".filter.html")


def write_filter_page(
    choice: FilterChoice, *, num_workers: int = 0, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Path:
    """Write the page next to the report, and return where it is. Only the pictures that it shows are read.

    Args:
        choice: what was kept and removed.
        num_workers: processes that read pictures; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        AimcoreError: the source cannot be opened.
        CannotWrite: the system refused.
    """
    record, path = choice.record, page_of(choice.report)
    sections = list(_sections(record))
    own, others = _wanted(sections)
    others[""] = [*others.get("", []), *own]
    pictures = {}
    for name, indices in others.items():
        source = choice.source.open() if not name else _opened(name)
        pictures[name] = _pictures(source, indices, num_workers, progress)
    values = {
        "name": path.name.removesuffix(".filter.html"),
        "record": record,
        "broken": [one for one in record["removed"] if "cause" in one][:MOST_SHOWN],
        "num_broken": sum("cause" in one for one in record["removed"]),
        "sections": [_drawn(section, pictures) for section in sections],
    }
    write_page("filter.html", path, values)
    return path


def _sections(record: Mapping[str, Any]) -> Iterator[_Section]:
    removed: Sequence[Entry] = record["removed"]
    steps = record["steps"]
    if steps["against"]:
        found = [one for one in removed if one.get("rule") == BY_HASH]
        yield _Section(
            "hash", "Evaluation images by hash",
            f"The perceptual hash differs in at most {steps['hash_distance']} of 64 bits. The most doubtful are first.",
            len(found), _first(found, "distance", is_largest=True), "distance",
        )  # fmt: skip
    if record["similarities"] is not None:
        found = [one for one in removed if one.get("rule") == BY_EMBEDDING]
        threshold = f"{record['similarities']['threshold']:g}"
        yield _Section(
            "embedding", "Evaluation images by embedding",
            f"The cosine of the features is at least {threshold}. The most doubtful are first.",
            len(found), _first(found, "similarity"), "similarity",
        )  # fmt: skip
        nearest = record["similarities"]["nearest_kept"]
        yield _Section(
            "nearest", "Nearest to evaluation images, and kept",
            f"The cosine of the features is below {threshold}. If some of these are copies, the threshold is too high.",
            None, nearest[:MOST_SHOWN], "similarity", is_kept=True,
        )  # fmt: skip
    if steps["deduplicate"]:
        found = [one for one in removed if one["reason"] == DUPLICATE]
        yield _Section(
            "duplicates", "Duplicates",
            "Each is shown with the first sample of its group. The most doubtful are first.",
            len(found), _first(found, "distance", is_largest=True), "distance",
        )  # fmt: skip
    if record["scores"] is not None:
        yield from _score_sections(removed, record["scores"])


def _score_sections(removed: Sequence[Entry], scores: Mapping[str, Any]) -> Iterator[_Section]:
    low = [one for one in removed if one["reason"] == LOW_SCORE]
    threshold = f"{scores['threshold']:.4f}"
    yield _Section(
        "best", "Best scores", "The captions that fit best.", scores["num_kept"], scores["best"][:MOST_SHOWN], "score",
        is_kept=True,
    )  # fmt: skip
    yield _Section(
        "lowest-kept", "Just kept", f"The lowest scores from {threshold} up.", scores["num_kept"],
        scores["lowest_kept"][:MOST_SHOWN], "score", is_kept=True,
    )  # fmt: skip
    yield _Section(
        "highest-removed", "Just removed", "The highest scores of those that are removed.", len(low),
        _first(low, "score", is_largest=True), "score",
    )  # fmt: skip
    yield _Section(
        "worst", "Worst scores", "The captions that fit worst.", len(low), _first(low, "score"), "score"
    )  # fmt: skip


def _first(found: Sequence[Entry], value: str, *, is_largest: bool = False) -> Sequence[Entry]:
    """Return those with the smallest or the largest value; of equal ones the first."""
    return sorted(found, key=lambda one: -one[value] if is_largest else one[value])[:MOST_SHOWN]


def _wanted(sections: Sequence[_Section]) -> tuple[list[int], dict[str, list[int]]]:
    """Return the numbers of samples that are shown, and of what they are like: by source, "" for the filtered one."""
    others: dict[str, list[int]] = {}
    entries = list(chain.from_iterable(section.entries for section in sections))
    for one in entries:
        if "like_index" in one:
            others.setdefault(one.get("source", ""), []).append(one["like_index"])
    return [one["index"] for one in entries], others


def _opened(name: str) -> OpenSource | None:
    """Return an evaluation set; None if it has gone since the choice was made."""
    try:
        return source_named(name).open()
    except AimcoreError:
        return None


def _pictures(
    source: OpenSource | None, indices: list[int], num_workers: int, progress: Callable[[str, int, int], None]
) -> Mapping[int, Thumbnail | None]:
    """Return the pictures by number; None for those that are not there now."""
    wanted = np.unique(np.array(indices, dtype=np.int64))
    there = wanted[wanted < (0 if source is None else len(source))]
    found = {} if source is None else thumbnails(source, there, num_workers, progress)
    return {**dict.fromkeys(wanted.tolist()), **found}


def _drawn(section: _Section, pictures: Mapping[str, Mapping[int, Thumbnail | None]]) -> Mapping[str, Any]:
    return {
        **attrs.asdict(section),
        "entries": [_entry(one, section.value, pictures) for one in section.entries],
    }


def _entry(one: Entry, value: str, pictures: Mapping[str, Mapping[int, Thumbnail | None]]) -> Mapping[str, Any]:
    other = None
    if "like_index" in one:
        like = pictures[one.get("source", "")][one["like_index"]]
        other = {**_NO_DETAILS, "identifier": one["like"], "source": one.get("source", ""), "thumbnail": like}
    number = f"{one[value]:,}" if isinstance(one[value], int) else f"{one[value]:.5f}"
    own = {"identifier": one["identifier"], "thumbnail": pictures[""][one["index"]]}
    return {**_NO_DETAILS, **own, "value": number, "other": other}
