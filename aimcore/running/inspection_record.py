"""An inspection of a source as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from aimcore.data.perceptual_hash import Indices
from aimcore.running.source_inspection import SourceInspection, Spread
from aimcore.running.source_measurements import UNLABELLED, CaptionLengths

_FREQUENT = 20


def inspection_record(found: SourceInspection) -> dict[str, Any]:
    """Return everything that was found, in plain values."""
    measured = found.measured
    return {
        "num_samples": found.num_samples,
        "num_broken": len(measured.broken),
        "broken": [attrs.asdict(one) for one in measured.broken],
        "left_out": dict(found.left_out),
        "num_unlabelled": found.num_unlabelled,
        "classes": [
            {"label": label, "name": found.name_of(label), "num_samples": count}
            for label, count in found.classes().items()
        ],
        "captions": {kind: _captions(lengths) for kind, lengths in measured.captions.items()},
        "sizes": _sizes(found),
        "files": {"forms": dict(measured.forms.most_common()), "num_bytes": measured.num_bytes},
        "num_without_contrast": found.num_without_contrast,
        "duplicates": {
            "exact": _groups(found, found.exact),
            "near": _groups(found, found.near),
            "near_most_bits": found.most_bits,
        },
    }


def _captions(lengths: CaptionLengths) -> Mapping[str, Any]:
    return {
        "num_samples": lengths.num_samples,
        "num_captions": lengths.num_captions,
        "characters": attrs.asdict(Spread.of(lengths.characters)),
        "words": attrs.asdict(Spread.of(lengths.words)),
    }


def _sizes(found: SourceInspection) -> Mapping[str, Any]:
    return {
        **{name: attrs.asdict(spread) for name, spread in found.spreads().items()},
        "extremes": {what: _sample(found, position) for what, position in found.extremes().items()},
        "frequent": [
            {"width": width, "height": height, "num_samples": count}
            for width, height, count in found.frequent_sizes(_FREQUENT)
        ],
    }


def _groups(found: SourceInspection, groups: Sequence[Indices]) -> list[Mapping[str, Any]]:
    return [
        {"other_labels": found.has_other_labels(group), "samples": [_sample(found, place) for place in group.tolist()]}
        for group in groups
    ]


def _sample(found: SourceInspection, position: int) -> Mapping[str, Any]:
    row = found.measured.rows_n[position]
    label = int(row["label"])
    return {
        "index": int(row["index"]),
        "identifier": found.measured.identifiers[position],
        "width": int(row["width"]),
        "height": int(row["height"]),
        "label": None if label == UNLABELLED else label,
    }
