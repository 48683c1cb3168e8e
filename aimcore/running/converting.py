"""``aimcore data convert``: the samples of a source in another layout, written in parts and moved to their place.

Everything is written to ``.NAME.converting`` next to the destination. A part has a fixed range of samples and a record
of its own, which is written last: after an interruption, parts without a record are written again, so that the result
has equal bytes. What is complete is moved into place by renaming.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from loguru import logger

from aimcore.contracts import limits
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import AimcoreError, DataNotFound, InvalidValue, TooManyUnreadable, UnreadableSample
from aimcore.contracts.sample_writers import SampleWriter, Written, WrittenSample
from aimcore.contracts.sources import OpenSource, Source
from aimcore.data.streaming import stream
from aimcore.io.atomic_files import FileExists, make_folder, remove_partial, to_disk, write_atomically, writing
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed
from aimcore.running.folder_lock import FolderLock
from aimcore.running.image_sources import require_apart

Progress = Callable[[str, int, int], None]
UNREADABLE = "samples that could not be read when they were converted"
_PLAN, _PARTS, _COMPLETE = "plan.json", "parts", "complete.json"
_NAMED = 20


class CannotConvert(AimcoreError):
    """The destination cannot be written, or holds the unfinished conversion of something else."""


@attrs.frozen
class Converted:
    """What a conversion has written."""

    source: Source
    """Reads what was written."""
    num_samples: int
    num_unreadable: int
    unreadable: tuple[str, ...]
    """Names and causes of the first of them."""


@attrs.frozen(eq=False)
class _Parts:
    """Writes part ``number`` of the samples; a loader, see :mod:`aimcore.data.streaming`."""

    source: OpenSource
    writer: SampleWriter
    work: Path
    indices_n: npt.NDArray[np.int64]
    per_part: int

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        """Write a part and its record, and return the record."""
        record: dict[str, Any] = {"samples": 0, "labelled": 0, "kinds": [], "unreadable": []}
        class_names = tuple(self.source.class_names)
        self.writer.write_part(self.work, number, self._samples(number, record), class_names)
        write_atomically(_record_of(self.work, number), json.dumps(record))
        return record

    def _samples(self, number: int, record: dict[str, Any]) -> Iterator[WrittenSample]:
        for index in self.indices_n[number * self.per_part : (number + 1) * self.per_part].tolist():
            try:
                sample, content = self.source.read_with_file(index)
            except UnreadableSample as failure:
                record["unreadable"].append([failure.identifier, failure.cause])
                continue
            record["samples"] += 1
            record["labelled"] += sample.label is not None
            record["kinds"] = sorted({*record["kinds"], *sample.captions})
            yield WrittenSample(index, sample, content)


def convert(
    source: Source,
    destination: Source,
    *,
    indices_n: npt.NDArray[np.int64] | None = None,
    per_part: int = 1000,
    num_workers: int = 0,
    max_unreadable: int = 100,
    progress: Progress = lambda *_: None,
) -> Converted:
    """Write samples of a source to another layout, from where an earlier call stopped.

    Images that are JPEG, PNG or WebP files are copied as they are, all others as PNG; a zarr group stores pixels.
    Labels, names of classes, captions and identifiers are kept, extras are not. Samples that cannot be decoded are left
    out.

    Args:
        source: what is read.
        destination: the source that will read what is written.
        indices_n: numbers of the samples, in their new order; by default all.
        per_part: number of samples of a shard, and of what is repeated after an interruption.
        num_workers: processes that read and write; 0 works in a thread.
        max_unreadable: how many unreadable samples may be left out.
        progress: is called with (what, number done, total).

    Raises:
        FileExists: the destination exists.
        CannotConvert: the destination's layout cannot be written, or an unfinished conversion of something else is
            there.
        TooManyUnreadable: more samples than allowed cannot be read; with a higher limit, the same call continues.
        RunFolderError: another process writes there.
        AimcoreError: the source cannot be opened, or the layout cannot express it.
    """
    _require_numbers(per_part, num_workers, max_unreadable)
    writer = require_free(destination)
    path, work = writer.path, _work_of(writer)
    require_apart(source, path)
    opened = source.open()
    if not len(opened):
        raise DataNotFound(f"{source.name} has no samples")
    for reason, count in opened.left_out.items():
        logger.warning(
            "{} does not read {:,} {}, so they are not written. If labels or captions are among them, give the source "
            "as JSON with the fields that read them",
            source.name, count, reason,
        )  # fmt: skip
    chosen_n = np.arange(len(opened)) if indices_n is None else np.asarray(indices_n, dtype=np.int64)
    parts = _Parts(opened, writer, work, chosen_n, per_part if writer.is_divisible else max(1, len(chosen_n)))
    with FolderLock(work):
        _begin(work, _plan(source, destination, parts))
        if not (work / _COMPLETE).exists():
            _complete(parts, num_workers, max_unreadable, progress)
        done = json.loads((work / _COMPLETE).read_text(encoding="utf-8"))
        _move(work, path)
    shutil.rmtree(work, ignore_errors=True)
    result: Source = structured(done["source"], Source, installed(), {})
    return Converted(result, done["num_samples"], done["num_unreadable"], tuple(done["unreadable"]))


def _require_numbers(per_part: int, num_workers: int, max_unreadable: int) -> None:
    problems = [
        *at_least("shard", per_part, 1, limits.IMAGES),
        *at_least("workers", num_workers, 0, limits.PROCESSES),
        *at_least("max-unreadable", max_unreadable, 0, limits.IMAGES),
    ]
    if problems:
        raise InvalidValue("convert", problems)


def require_free(destination: Source) -> SampleWriter:
    """Return what writes a destination.

    Raises:
        FileExists: the destination exists, and no conversion was interrupted while it moved what is complete.
        CannotConvert: the destination's layout cannot be written.
    """
    writer = destination.writer()
    if writer is None:
        raise CannotConvert(
            f"{destination.name} cannot be written: give a folder, *.zarr, or numbered files such as out/train-*.tar "
            "and out/train-*.parquet on a local disk"
        )
    path = writer.path
    if (_work_of(writer) / _COMPLETE).exists():
        return writer
    found = sorted(path.parent.glob(path.name)) if "*" in path.name else [path] if os.path.lexists(path) else []
    if found and not (path.is_dir() and not any(path.iterdir())):
        raise FileExists(f"{found[0]} exists already, and nothing is overwritten: remove it, or choose another place")
    return writer


def _work_of(writer: SampleWriter) -> Path:
    return writer.path.with_name(f".{writer.path.name.replace('*', '')}.converting")


def _plan(source: Source, destination: Source, parts: _Parts) -> Mapping[str, Any]:
    """Return everything that the parts depend on."""
    return {
        "source": plain(source),
        "destination": plain(destination),
        "num_samples": len(parts.source),
        "class_names": list(parts.source.class_names),
        "samples": hashlib.blake2b(parts.indices_n.astype("<i8").tobytes(), digest_size=16).hexdigest(),
        "per_part": parts.per_part,
    }


def _begin(work: Path, plan: Mapping[str, Any]) -> None:
    if not (work / _PLAN).exists():
        for name in ("out", "spool", _PARTS):
            make_folder(work / name)
        write_atomically(work / _PLAN, json.dumps(plan))
        return
    begun = json.loads((work / _PLAN).read_text(encoding="utf-8"))
    # Through JSON, which has lists for tuples.
    others = [name for name, value in json.loads(json.dumps(plan)).items() if begun.get(name) != value]
    if others:
        raise CannotConvert(
            f"{work} has an unfinished conversion with another {', '.join(map(_called, others))}: repeat the command "
            "that began it, or remove this folder"
        )


def _called(name: str) -> str:
    """Return what a user calls a part of a plan."""
    return {
        "num_samples": "number of samples", "class_names": "list of classes", "samples": "choice of samples",
        "per_part": "--shard",
    }.get(name, name)  # fmt: skip


def _complete(parts: _Parts, num_workers: int, max_unreadable: int, progress: Progress) -> None:
    """Write what is missing, join it, and record that it is complete."""
    num_parts = -(-len(parts.indices_n) // parts.per_part)
    missing = [number for number in range(num_parts) if not _record_of(parts.work, number).exists()]
    records = {number: _read_record(parts.work, number) for number in set(range(num_parts)).difference(missing)}
    for number, record in zip(missing, stream(parts, missing, num_workers, 1), strict=True):
        records[number] = record
        _require_readable(records, max_unreadable)
        done = sum(one["samples"] + len(one["unreadable"]) for one in records.values())
        progress("converting", done, len(parts.indices_n))
    _require_readable(records, max_unreadable)
    written, failures = _summed([records[number] for number in range(num_parts)], parts.source)
    progress("joining", 0, 1)
    remove_partial(parts.work / "out")  # files that killed workers were writing
    source = parts.writer.finish(parts.work, written)
    complete = {
        "source": plain(source),
        "num_samples": written.num_samples,
        "num_unreadable": len(failures),
        "unreadable": failures[:_NAMED],
    }
    write_atomically(parts.work / _COMPLETE, json.dumps(complete))
    progress("joining", 1, 1)


def _summed(records: Sequence[Mapping[str, Any]], source: OpenSource) -> tuple[Written, list[str]]:
    failures = [f"{name}: {cause}" for record in records for name, cause in record["unreadable"]]
    written = Written(
        num_parts=len(records),
        num_samples=sum(record["samples"] for record in records),
        class_names=tuple(source.class_names),
        caption_kinds=tuple(sorted({kind for record in records for kind in record["kinds"]})),
        num_labelled=sum(record["labelled"] for record in records),
        left_out={**source.left_out, **({UNREADABLE: len(failures)} if failures else {})},
    )
    if not written.num_samples:
        raise TooManyUnreadable(f"none of the samples could be read; the first: {failures[0]}")
    return written, failures


def _require_readable(records: Mapping[int, Mapping[str, Any]], most: int) -> None:
    failures = [failure for record in records.values() for failure in record["unreadable"]]
    if len(failures) > most:
        name, cause = failures[-1]
        raise TooManyUnreadable(
            f"{len(failures)} samples could not be read, more than --max-unreadable = {most} allows; one of them: "
            f"{name} ({cause}). Repair the data, or continue with a higher limit"
        )


def _move(work: Path, path: Path) -> None:
    """Move what is complete next to its place."""
    entries = sorted((work / "out").iterdir())
    for entry in entries:
        place = path.parent / entry.name
        if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
            raise FileExists(f"{place} appeared while {work} was written: move it away, and repeat the command")
    for entry in entries:
        with writing(path.parent / entry.name):
            os.replace(entry, path.parent / entry.name)
    with writing(path.parent):
        to_disk(path.parent)
    logger.info("{} files and folders are in {}", len(entries), path.parent)


def _record_of(work: Path, number: int) -> Path:
    return work / _PARTS / f"{number:05}.json"


def _read_record(work: Path, number: int) -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads(_record_of(work, number).read_text(encoding="utf-8"))
    return record
