"""What a filter has found out about samples so far, in parts on the disk, so that an interrupted filter continues.

A part is a fixed range of samples of a source. It is a file of its own, which appears whole or not at all, and is
computed after all parts before it. So the parts that are there after an interruption are the first ones.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import InvalidValue
from aimcore.data.streaming import stream
from aimcore.io.atomic_files import make_folder, write_atomically, writing
from aimcore.running.filter_reading import CHUNK, ReadSample, SampleReader

Progress = Callable[[str, int, int], None]
CHUNKS_PER_PART = 4
"""What an interruption loses at most, in chunks of 64 samples."""
_DESCRIPTION = "description.json"


@attrs.frozen(eq=False)
class Part:
    """What is known of a range of samples, or of all of them."""

    rows_n: npt.NDArray[Any]
    """A row of each sample, in their order."""
    features_mD: npt.NDArray[np.float32] | None
    """Features of unit length of the samples that can be read, in their order; None if they are not kept."""
    identifiers: Sequence[str]
    """Names of the samples."""
    causes: Mapping[int, str]
    """Why samples, or their captions, cannot be read, by the number of the sample."""


Work = Callable[[Sequence[ReadSample]], Part]
"""Returns what is known of the samples of a chunk."""


class PartStore:
    """A folder with parts. Nothing is kept without a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        """Name the folder."""
        self._folder = folder

    def begin(self, description: Mapping[str, Any]) -> None:
        """Make the folder for parts that depend on ``description``.

        Raises:
            InvalidValue: the folder has parts that depend on something else.
            CannotWrite: the system refused.
        """
        assert self._folder is not None
        make_folder(self._folder)
        place = self._folder / _DESCRIPTION
        # Through JSON, which has lists for tuples.
        here = json.loads(json.dumps(description))
        with writing(place):
            there = _json_object(place.read_text(encoding="utf-8")) if place.exists() else here
        others = [name for name, value in here.items() if there.get(name) != value]
        if others:
            message = (
                f"{self._folder} has an unfinished choice with other {', '.join(others)}: repeat the command that "
                "began it, or remove this folder"
            )
            raise InvalidValue("filter", [("", message)])
        write_atomically(place, json.dumps(description, indent=1))

    def load(self, name: str, number: int) -> Part | None:
        """Return a part; None if it is not there, or damaged."""
        if self._folder is None or not (path := self._path(self._folder, name, number)).exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                about = json.loads(found["about"].tobytes())
                causes = {int(index): cause for index, cause in about["causes"].items()}
                return Part(found["rows_n"], found.get("features_mD"), about["identifiers"], causes)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, name: str, number: int, part: Part) -> None:
        """Store a part.

        Raises:
            CannotWrite: the system refused.
        """
        if self._folder is None:
            return
        about = {"identifiers": list(part.identifiers), "causes": dict(part.causes)}
        arrays = {"rows_n": part.rows_n, "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)}
        if part.features_mD is not None:
            arrays["features_mD"] = part.features_mD
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        write_atomically(self._path(self._folder, name, number), content.getvalue())

    def _path(self, folder: Path, name: str, number: int) -> Path:
        return folder / f"{name}-{number:08}.npz"


def _json_object(text: str) -> Mapping[str, Any]:
    """Return an object; an empty one for text that is damaged, which is then like no description."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def parts_of(
    store: PartStore,
    name: str,
    reader: SampleReader,
    work: Work,
    *,
    remember: Callable[[Part], None] = lambda _: None,
    num_workers: int = 0,
    progress: Progress = lambda *_: None,
    doing: str = "reading",
) -> Part:
    """Return what is known of all samples of a source: the parts that are stored, and the others as they are computed.

    Args:
        store: where parts are stored.
        name: name of the parts in the store.
        reader: reads the source, which is not empty.
        work: computes what is known of a chunk; chunks come in order.
        remember: is called with each stored part, before anything is computed.
        num_workers: processes that read; 0 reads in a thread.
        progress: is called with (what, number done, total).
        doing: what is done, for ``progress``.

    Raises:
        CannotWrite: the system refused to store a part.
    """
    parts: list[Part] = []
    while (part := store.load(name, len(parts))) is not None:
        remember(part)
        parts.append(part)
    total = len(reader.source)
    for part in _computed(reader, work, len(parts) * CHUNKS_PER_PART, num_workers):
        store.save(name, len(parts), part)
        parts.append(part)
        progress(doing, min(total, len(parts) * CHUNKS_PER_PART * CHUNK), total)
    return joined(parts)


def _computed(reader: SampleReader, work: Work, first: int, num_workers: int) -> Iterator[Part]:
    """Yield parts, from chunk ``first`` on."""
    found: list[Part] = []
    with closing(stream(reader, range(first, len(reader)), num_workers, 1)) as chunks:
        for chunk in chunks:
            found.append(work(chunk))
            if len(found) == CHUNKS_PER_PART:
                yield joined(found)
                found.clear()
    if found:
        yield joined(found)


def joined(parts: Sequence[Part]) -> Part:
    """Return parts, of which there is at least one, as one."""
    features = [part.features_mD for part in parts if part.features_mD is not None]
    return Part(
        rows_n=np.concatenate([part.rows_n for part in parts]),
        features_mD=np.concatenate(features) if features else None,
        identifiers=[identifier for part in parts for identifier in part.identifiers],
        causes={index: cause for part in parts for index, cause in part.causes.items()},
    )
