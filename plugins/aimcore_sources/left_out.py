"""Reasons for which sources leave files out, in a bounded number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from aimcore.contracts.messages import printable

_MOST_ENDINGS = 5
_LONGEST_ENDING = 20


def with_ending(reason: str, ending: str) -> str:
    """Return ``reason`` with the suffix of a file's name, without its dot: "files of other kinds (.txt)"."""
    return f"{reason} (.{printable(ending)[:_LONGEST_ENDING]})" if ending else f"{reason} (without ending)"


def summarised(left_out: Mapping[str, int]) -> dict[str, int]:
    """Return counts by reason, largest first. Rare suffixes of a reason are added up."""
    num_endings: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for reason, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0])):
        if not count:
            continue
        stem, has_ending, _ = reason.partition(" (.")
        num_endings[stem] += bool(has_ending)
        found[f"{stem} (further endings)" if num_endings[stem] > _MOST_ENDINGS else reason] += count
    return dict(found)
