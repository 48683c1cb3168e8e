"""Images in a folder, with captions in a file of JSON lines."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from aimcore import InvalidValue, OpenSource, Problem, Sample, Source, component
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable
from aimcore.contracts.sample_writers import SampleWriter
from aimcore.io.image_files import MAX_PIXELS, decode
from aimcore.io.locations import local_path, location_problems
from aimcore.io.retries import StoreUnavailable, with_retries
from aimcore.io.text_files import decode_text, flaw_in, parse_json, split_lines
from aimcore_sources.decoding import connect, pixel_problems, read_file
from aimcore_sources.folder_writing import FolderWriter
from aimcore_sources.left_out import summarised
from aimcore_sources.listing import IMAGE_SUFFIXES, listing_of

_MAX_FAULTS = 5


class Entry(NamedTuple):
    """A line of the listing."""

    file: str
    captions: Mapping[str, tuple[str, ...]]
    label: str | int | None


@component("captioned_folder")
class CaptionedFolder(Source):
    """The images that a file of JSON lines names, in its order, each with captions by kind and a label.

        {"file": "a/1.jpg", "caption": "a red shoe", "label": "shoe"}
        {"file": "b/2.jpg", "captions": {"alt": ["bag", "my bag"], "synthetic": "a blue bag"}, "label": "bag"}

    ``caption`` is short for the kind ``"alt"``. Labels are names, which become classes in sorted order, or
    numbers; either every line has a label or none. Files are paths within the folder, and may be links.

    On a local disk, images that no line names are left out and counted. Lines without an image are counted too, but
    remain samples, which cannot be read. A remote folder is not listed, because that may take long.
    """

    url: str
    """The folder: a path or URL."""
    listing: str = "captions.jsonl"
    """The name of the listing in the folder."""
    max_pixels: int = MAX_PIXELS
    """An image with more pixels is unreadable: it is treated as a decompression bomb."""

    def problems(self) -> Iterable[Problem]:
        """Yield a refused protocol, and a limit on pixels that Pillow does not allow."""
        yield from location_problems("url", self.url)
        yield from pixel_problems(self.max_pixels)

    def open(self) -> OpenSource:
        """Read the listing.

        Raises:
            DataNotFound: the listing is missing or empty.
            InvalidValue: lines are wrong; the message has the first few.
        """
        filesystem, root = connect(self.url, "CaptionedFolder")
        path = f"{root.rstrip('/')}/{self.listing}"
        try:
            lines = split_lines(decode_text(with_retries(self.url, lambda: filesystem.cat_file(path)), self.listing))
        except StoreUnavailable:
            raise
        except (OSError, ValueError) as cause:
            raise DataNotFound(
                f"CaptionedFolder: cannot read {self.url}/{self.listing} ({type(cause).__name__}: {cause}): it must "
                'have one line of JSON per image, {"file": ..., "caption": ...}'
            ) from cause
        entries = _entries(lines, self.listing)
        if not entries:
            raise DataNotFound(f"CaptionedFolder: {self.url}/{self.listing} names no image")
        opened = OpenCaptionedFolder(self.url, entries, _class_names(entries, self.listing), self.max_pixels)
        opened.left_out = _left_out(self.url, entries)
        return opened

    def writer(self) -> SampleWriter:
        """Return a writer of a folder with a listing; see :class:`aimcore_sources.folder_writing.FolderWriter`."""
        return FolderWriter(self.url, CaptionedFolder)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the folder is the user's."""
        return ()


def _entries(lines: Iterable[str], listing: str) -> tuple[Entry, ...]:
    entries, faults, seen = [], [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _entry(parse_json(line, "the line"))
            if entry.file in seen:
                raise ValueError(f"{entry.file!r} occurs twice")
            seen.add(entry.file)
            entries.append(entry)
        except ValueError as cause:
            faults.append((f"{listing}:{number}", printable(str(cause))))
    if faults:
        more = [("", f"and {len(faults) - _MAX_FAULTS} more lines")] if len(faults) > _MAX_FAULTS else []
        raise InvalidValue("CaptionedFolder", faults[:_MAX_FAULTS] + more)
    return tuple(entries)


def _left_out(url: str, entries: Sequence[Entry]) -> dict[str, int]:
    folder = local_path(url)
    if folder is None:
        return {}
    listing = listing_of(url, "CaptionedFolder")
    files, named = set(listing.files), {posixpath.normpath(entry.file) for entry in entries}
    found = {
        "images that no line names": sum(name not in named for name in listing.with_suffix(IMAGE_SUFFIXES)),
        # Hidden files are not listed, and may be named.
        "lines whose image is missing": sum(not (folder / name).is_file() for name in named - files),
    }
    return summarised(found)


def _entry(line: Any) -> Entry:
    """Parse a line.

    Raises:
        ValueError: the content is not valid.
    """
    if not isinstance(line, dict):
        raise ValueError(f"must be a mapping, got {line!r:.80}")
    unknown = sorted(set(line) - {"file", "caption", "captions", "label"})
    if unknown:
        raise ValueError(f"unknown key {unknown}; known keys are file, caption, captions and label")
    file, label = line.get("file"), line.get("label")
    if not isinstance(file, str) or not _is_within(file):
        raise ValueError(f"'file' must be a path within the folder, got {file!r:.80}")
    is_number = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**63
    if not (is_number or isinstance(label, str | None)):
        raise ValueError(f"'label' must be a name or a number from 0 on, got {label!r:.80}")
    if isinstance(label, str) and (flaw := flaw_in(label)):
        raise ValueError(f"in 'label', {flaw}")
    return Entry(file, _captions(line), label)


def _is_within(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\\" not in file


def _captions(line: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    given = line.get("captions", {})
    if not isinstance(given, dict) or ("caption" in line and "captions" in line):
        raise ValueError("give either 'caption', one text, or 'captions', texts by kind")
    given = {"alt": line["caption"]} if "caption" in line else given
    captions = {}
    for kind, texts in given.items():
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, list) or not all(isinstance(text, str) for text in several):
            raise ValueError(f"captions of kind {kind!r} must be a text or a list of texts, got {texts!r:.80}")
        captions[kind] = tuple(several)
    return {kind: texts for kind, texts in captions.items() if texts}


def _class_names(entries: Sequence[Entry], listing: str) -> tuple[str, ...]:
    kinds = {type(entry.label) for entry in entries}
    if len(kinds) > 1:
        named = ", ".join(sorted({str: "names", int: "numbers", type(None): "no label"}[kind] for kind in kinds))
        message = f"labels must be names throughout, numbers throughout, or absent, got {named}"
        raise InvalidValue("CaptionedFolder", [(listing, message)])
    return tuple(sorted({entry.label for entry in entries if isinstance(entry.label, str)}))


class OpenCaptionedFolder(OpenSource):
    """A parsed listing. It has no open connection, so that it can be sent to data workers."""

    def __init__(self, url: str, entries: tuple[Entry, ...], class_names: tuple[str, ...], max_pixels: int) -> None:
        self._url = url
        self._entries = entries
        self._labels = {name: label for label, name in enumerate(class_names)}
        self._max_pixels = max_pixels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> Sample:
        """Return the image as RGB, upright, with its captions; see :meth:`read_with_file`."""
        return self.read_with_file(index)[0]

    def read_with_file(self, index: int) -> tuple[Sample, bytes]:
        """Return the sample, whose identifier is its path in the folder, and the content of its file.

        Raises:
            UnreadableSample: the file is missing, damaged, not an image, or too large.
        """
        entry = self._entries[index]
        name = printable(entry.file)
        content = read_file(self._url, entry.file)
        image = decode(content, name, self._max_pixels)
        return Sample(image=image, identifier=name, captions=entry.captions, label=self.label(index)), content

    def label(self, index: int) -> int | None:
        """The label, from the listing."""
        label = self._entries[index].label
        return self._labels[label] if isinstance(label, str) else label

    def known_labels(self) -> npt.NDArray[np.int64]:
        """All labels, from the listing."""
        found = [self.label(index) for index in range(len(self))]
        return np.array([-1 if label is None else label for label in found], dtype=np.int64)
