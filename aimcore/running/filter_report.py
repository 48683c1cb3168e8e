"""``aimcore data filter``: the report of a choice of samples, and the conversion of those that are kept.

The report is written before anything is converted. So a command that was interrupted then, or that was a dry run,
continues with the choice in the report instead of making it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np

from aimcore.contracts import limits
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.sources import Source
from aimcore.data.perceptual_hash import Indices
from aimcore.encoders.loading import load_encoder
from aimcore.io.atomic_files import FileExists, require_new, require_writable, write_atomically
from aimcore.io.terminal import json_text
from aimcore.recipe.writing import plain
from aimcore.running.converting import Converted, Progress, convert, require_free
from aimcore.running.image_sources import require_apart, source_named
from aimcore.running.pair_scores import require_towers
from aimcore.running.source_filtering import Filtered, Filtering, filter_source


@attrs.frozen
class FilterResult:
    """What a call has done."""

    report: Path
    record: Mapping[str, Any]
    """What the report holds."""
    is_new: bool
    """False if an earlier call wrote the report."""
    converted: Converted | None
    """What was written; None in a dry run."""


def report_of(destination: Source) -> Path:
    """Return where the report of a destination is: next to it, ``train.tar.filter.json`` for ``train-*.tar``."""
    path = require_free(destination).path
    return path.with_name(re.sub(r"[-_.]?\*", "", path.name, count=1) + ".filter.json")


def filter_to(
    source: Source,
    destination: Source,
    filtering: Filtering,
    *,
    num_workers: int = 0,
    is_dry_run: bool = False,
    progress: Progress = lambda *_: None,
) -> FilterResult:
    """Choose samples of a source, report what is removed, and write the others in another layout.

    Args:
        source: what is filtered.
        destination: the source that will read what is written.
        filtering: the steps.
        num_workers: processes that read and write; 0 works in a thread.
        is_dry_run: write the report only. A later call that is no dry run continues with it.
        progress: is called with (what, number done, total).

    Raises:
        FileExists: the destination exists, or a report of another choice.
        NothingLeft: every sample would be removed; there is no report then.
        AimcoreError: the source, a source to compare with, or the encoder cannot be used.
    """
    if problems := list(at_least("workers", num_workers, 0, limits.PROCESSES)):
        raise InvalidValue("filter", problems)
    report = report_of(destination)
    require_apart(source, report)
    about = {"source": plain(source), "destination": plain(destination), "steps": attrs.asdict(cast(Any, filtering))}
    record = _earlier(report, about)
    is_new = record is None
    if record is None:
        require_writable(report)
        found = _found(source, filtering, num_workers, progress)
        record = {**about, **_record(found)}
        require_new(report)
        write_atomically(report, json_text(record))
    if is_dry_run:
        return FilterResult(report, record, is_new, None)
    kept_n = _kept(report, record, len(source.open()))
    done = convert(source, destination, indices_n=kept_n, num_workers=num_workers, progress=progress)
    return FilterResult(report, record, is_new, done)


def _found(source: Source, filtering: Filtering, num_workers: int, progress: Progress) -> Filtered:
    """Open everything before anything is read that takes long, and choose."""
    encoder = None
    if filtering.scores_by is not None:
        encoder = load_encoder(filtering.scores_by, **filtering.encoder_settings)
        require_towers(encoder)
    evaluation_sets = {name: source_named(name).open() for name in filtering.against}
    return filter_source(
        source.open(), filtering, evaluation_sets=evaluation_sets, encoder=encoder, num_workers=num_workers,
        progress=progress,
    )  # fmt: skip


def _record(found: Filtered) -> dict[str, Any]:
    return {
        "num_samples": found.num_samples,
        "num_kept": len(found.kept_n),
        "num_removed": found.counts(),
        "evaluation_sets": found.evaluation_sets,
        "scores": found.scores,
        "removed": found.removed,
    }


def _earlier(report: Path, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the report of an earlier call with equal settings; None if there is no report."""
    if not report.exists():
        return None
    try:
        record: Any = json.loads(report.read_text(encoding="utf-8"))
        # Through JSON, which has lists for tuples.
        is_same = all(record[name] == value for name, value in json.loads(json.dumps(about)).items())
    except (OSError, ValueError, KeyError, TypeError):
        is_same = False
    if not is_same:
        raise FileExists(
            f"{report} exists already, and is not the report of this command: remove it, or choose another destination"
        )
    found: Mapping[str, Any] = record
    return found


def _kept(report: Path, record: Mapping[str, Any], num_samples: int) -> Indices:
    """Return the numbers of the samples that a report does not list."""
    if record["num_samples"] != num_samples:
        raise FileExists(
            f"{report} is about {record['num_samples']:,} samples, and the source has {num_samples:,} now: remove it "
            "to choose again"
        )
    removed_n = np.array([one["index"] for one in record["removed"]], dtype=np.int64)
    return np.setdiff1d(np.arange(num_samples), removed_n)
