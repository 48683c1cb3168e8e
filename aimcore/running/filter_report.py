"""``aimcore data filter``: the report of a choice of samples, and the conversion of those that are kept.

The report is written before anything is converted. So a command that was interrupted then, or that was a dry run,
continues with the choice in the report instead of making it again. Until the report is there, what is known of the
samples so far is in the folder ``.NAME.filtering`` next to it, and the same command continues from that.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np

from aimcore.contracts import limits
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.sources import OpenSource, Source
from aimcore.encoders.embedding import Embedding, described_embedding
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.loading import load_encoder
from aimcore.evaluation.feature_keys import weights_digest
from aimcore.io.atomic_files import FileExists, require_new, require_writable, write_atomically
from aimcore.io.terminal import json_text
from aimcore.recipe.writing import plain
from aimcore.running.converting import Converted, Progress, convert, require_free
from aimcore.running.filter_parts import PartStore
from aimcore.running.filter_steps import Filtering
from aimcore.running.folder_lock import FolderLock
from aimcore.running.image_sources import require_apart, source_named
from aimcore.running.pair_scores import require_captions, require_towers
from aimcore.running.source_filtering import Filtered, filter_source, require_samples

REPORT = ".filter.json"
"""Ending of reports."""


@attrs.frozen
class FilterChoice:
    """Which samples are kept."""

    source: Source
    destination: Source
    report: Path
    record: Mapping[str, Any]
    """What the report holds."""
    is_new: bool
    """False if an earlier call wrote the report."""


def report_of(destination: Source) -> Path:
    """Return where the report of a destination is: next to it, ``train.tar.filter.json`` for ``train-*.tar``."""
    path = require_free(destination).path
    return path.with_name(re.sub(r"[-_.]?\*", "", path.name, count=1) + REPORT)


def choose(
    source: Source,
    destination: Source,
    filtering: Filtering,
    *,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
) -> FilterChoice:
    """Choose samples of a source, and report what is removed, from where an earlier call stopped.

    Args:
        source: what is filtered.
        destination: the source that will read what is written.
        filtering: the steps.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).

    Raises:
        FileExists: the destination exists, or a report of another choice, or of another number of samples.
        InvalidValue: the unfinished choice of another command is there.
        NothingLeft: every sample would be removed; there is no report then.
        RunFolderError: another process makes the same choice.
        AimcoreError: the source, a source to compare with, or an encoder cannot be used.
    """
    if problems := list(at_least("workers", num_workers, 0, limits.PROCESSES)):
        raise InvalidValue("filter", problems)
    report = report_of(destination)
    require_apart(source, report)
    about = {"source": plain(source), "destination": plain(destination), "steps": attrs.asdict(cast(Any, filtering))}
    work = report.with_name(f".{report.name.removesuffix(REPORT)}.filtering")
    record = _earlier(report, about)
    is_new = record is None
    if record is not None:
        _require_number(report, record, len(source.open()))
    else:
        require_writable(report)
        opened = _opened(source, filtering)
        with FolderLock(work):
            record = _earlier(report, about)  # that another process has written in the meantime
            if record is None:
                record = {**about, **_record(_found(opened, filtering, work, num_workers, progress))}
                require_new(report)
                write_atomically(report, json_text(record))
    shutil.rmtree(work, ignore_errors=True)
    return FilterChoice(source, destination, report, record, is_new)


def write_kept(choice: FilterChoice, *, num_workers: int = 0, progress: Progress = lambda *_: None) -> Converted:
    """Write the samples that are kept in another layout, from where an earlier call stopped.

    Args:
        choice: names the samples.
        num_workers: processes that read and write; 0 works in a thread.
        progress: is called with (what, number done, total).

    Raises:
        FileExists: the destination exists.
        AimcoreError: the source cannot be read, or the destination cannot be written.
    """
    removed_n = np.array([one["index"] for one in choice.record["removed"]], dtype=np.int64)
    kept_n = np.setdiff1d(np.arange(choice.record["num_samples"]), removed_n)
    return convert(choice.source, choice.destination, indices_n=kept_n, num_workers=num_workers, progress=progress)


@attrs.frozen(eq=False)
class _Opened:
    """Everything that is read, opened before anything is read that takes long."""

    source: Source
    samples: OpenSource
    evaluation_sets: Mapping[str, tuple[Source, OpenSource]]
    scores_by: Encoder | None
    embeddings_by: Encoder | None


def _opened(source: Source, filtering: Filtering) -> _Opened:
    names = {name for name in (filtering.scores_by, filtering.embeddings_by) if name is not None}
    encoders = {name: load_encoder(name, **filtering.encoder_settings) for name in sorted(names)}
    scores_by = None if filtering.scores_by is None else encoders[filtering.scores_by]
    embeddings_by = None if filtering.embeddings_by is None else encoders[filtering.embeddings_by]
    if scores_by is not None:
        require_towers(scores_by)
    named = {name: source_named(name) for name in filtering.against}
    sets = {name: (one, one.open()) for name, one in named.items()}
    opened = _Opened(source, source.open(), sets, scores_by, embeddings_by)
    require_samples(opened.samples, {name: one for name, (_, one) in sets.items()})
    if scores_by is not None:
        require_captions(opened.samples, filtering.caption)
    return opened


def _found(opened: _Opened, filtering: Filtering, work: Path, num_workers: int, progress: Progress) -> Filtered:
    store = PartStore(work)
    store.begin(_description(opened, filtering))
    return filter_source(
        opened.samples, filtering, evaluation_sets={name: one for name, (_, one) in opened.evaluation_sets.items()},
        embeddings_by=opened.embeddings_by, scores_by=opened.scores_by, store=store, num_workers=num_workers,
        progress=progress,
    )  # fmt: skip


def _description(opened: _Opened, filtering: Filtering) -> Mapping[str, Any]:
    """Return everything that stored parts depend on: not the share that is kept, nor the lowest score."""
    steps = attrs.asdict(cast(Any, filtering))
    return {
        "source": [plain(opened.source), len(opened.samples)],
        "steps": {name: value for name, value in steps.items() if name not in ("keep", "min_score")},
        "evaluation sets": [[plain(one), len(samples)] for one, samples in opened.evaluation_sets.values()],
        "encoders": [
            None if encoder is None else _described(encoder) for encoder in (opened.scores_by, opened.embeddings_by)
        ],
    }


def _described(encoder: Encoder) -> Mapping[str, Any]:
    module = encoder.module if encoder.objective_module is None else encoder.objective_module
    embedding = Embedding().for_encoder(encoder)
    return {"weights": weights_digest(module), **described_embedding(embedding, encoder.transform)}


def _record(found: Filtered) -> dict[str, Any]:
    return {
        "num_samples": found.num_samples,
        "num_kept": len(found.kept_n),
        "num_removed": found.counts(),
        "evaluation_sets": found.evaluation_sets,
        "similarities": found.similarities,
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


def _require_number(report: Path, record: Mapping[str, Any], num_samples: int) -> None:
    """Refuse a source that has another number of samples now."""
    if record["num_samples"] != num_samples:
        raise FileExists(
            f"{report} is about {record['num_samples']:,} samples, and the source has {num_samples:,} now: remove it "
            "to choose again"
        )
