"""Images with captions in tar shards, read by index: any sample at any time, no stream and no shuffle buffer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import attrs
import numpy as np
import numpy.typing as npt

from aimcore import OpenSource, Problem, Sample, Source, UnreadableSample, component
from aimcore.data.decoding import decode
from aimcore.errors import DataNotFound
from aimcore_sources.decoding import connect, printable
from aimcore_sources.webdataset_index import Member, ShardError, expand, members_of

MAX_TEXT = 1_000_000
"""A longer caption or JSON member, in bytes, is not read."""


class Field(NamedTuple):
    """Where a caption or label stands: in a member's text, or under a key of a JSON member."""

    extension: str
    key: str | None

    @classmethod
    def of(cls, written: str) -> Field:
        """``"txt"``, or ``"json#caption"``."""
        extension, _, key = written.partition("#")
        return cls(extension.lower(), key or None)


@component("webdataset")
class WebDataset(Source):
    """Shards of WebDataset's layout: members of one sample share the name up to the first dot of the file name.

    The shards' headers are scanned once and kept in a small index, so that every sample can be read by number and a
    resumed run goes on exactly. A sample without an image is left out; one without a caption of a kind has none of
    that kind. Nothing is ever unpacked: a member's name is a name and never a path.
    """

    url: str
    """A path or URL; ``{00000..00123}`` and ``{a,b}`` are written out, ``*`` is looked up."""
    images: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Extensions of images; the first that a sample has counts."""
    captions: Mapping[str, str] = attrs.field(factory=lambda: {"alt": "txt"})
    """The member that holds the captions of each kind: ``{"alt": "txt", "synthetic": "json#synthetic"}``. A JSON key
    may hold one text or several."""
    label: str | None = None
    """The member that holds the label, as a number or one of ``class_names``: ``"cls"``, ``"json#category"``."""
    class_names: tuple[str, ...] = ()
    """Names of the labels."""
    cache_folder: str | None = None
    """Where indices are kept; None keeps each beside its shard, and none of remote shards."""

    def problems(self) -> Iterable[Problem]:
        """Images need an extension, and every field too."""
        if not self.images:
            yield Problem("images", "name at least one extension, such as 'jpg'")
        for kind, written in self.captions.items():
            if not Field.of(written).extension:
                yield Problem("captions", f"{kind!r} must name a member's extension, such as 'txt', got {written!r}")

    def open(self) -> OpenSource:
        """Find the samples in all shards.

        Raises:
            DataNotFound: a shard is missing, or there is no image in any.
            ShardError: a shard is damaged, or holds a member twice.
        """
        shards = expand(self.url)
        fields = [Field.of(written).extension for written in (*self.captions.values(), self.label or "")]
        wanted = list(dict.fromkeys(field for field in fields if field))
        found = _Found(tuple(extension.lower() for extension in self.images), tuple(wanted))
        for number, shard in enumerate(shards):
            found.add(shard, number, members_of(shard, self.cache_folder))
        if not found.names:
            looked = f"{len(shards)} shards of {self.url}" if len(shards) > 1 else self.url
            raise DataNotFound(f"WebDataset: no image in {looked} (looked for members ending in {self.images})")
        return OpenWebDataset(self, shards, found)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """None: the shards are the user's."""
        return ()


class _Found:
    """Samples as they are found: names, shards, and where the image and each wanted member lie."""

    def __init__(self, images: tuple[str, ...], wanted: tuple[str, ...]) -> None:
        self.images, self.wanted = images, wanted
        self.names: list[str] = []
        self.shards: list[int] = []
        self.places: list[list[tuple[int, int]]] = []

    def add(self, shard: str, number: int, members: Iterable[Member]) -> None:
        """The samples of a shard, in the order of their first members.

        Raises:
            ShardError: a member stands twice.
        """
        samples: dict[str, dict[str, Member]] = {}
        for member in members:
            key, extension = _split(member.name)
            if not extension:
                continue
            if samples.setdefault(key, {}).setdefault(extension, member) is not member:
                raise ShardError(f"{shard} holds {printable(member.name)!r} twice: write it again with unique names")
        for key, parts in samples.items():
            image = next((parts[extension] for extension in self.images if extension in parts), None)
            if image is not None:
                self.names.append(key)
                self.shards.append(number)
                self.places.append([image[1:], *(_place(parts.get(extension)) for extension in self.wanted)])


def _split(name: str) -> tuple[str, str]:
    """Key and extension: ``a/b.seg.png`` is the member ``seg.png`` of the sample ``a/b``. Hidden files have neither."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem else ("", "")


def _place(member: Member | None) -> tuple[int, int]:
    return (-1, 0) if member is None else (member.offset, member.size)


class OpenWebDataset(OpenSource):
    """Samples whose places in the shards are known. It holds no open file, so that it travels to data workers."""

    def __init__(self, config: WebDataset, shards: tuple[str, ...], found: _Found) -> None:
        self._config = config
        self._shards = shards
        self._wanted = found.wanted
        self._names = found.names
        self._shards_n = np.asarray(found.shards, dtype=np.int32)
        self._places_nM2: npt.NDArray[np.int64] = np.asarray(found.places, dtype=np.int64)
        # Names of samples leave out the folder of the shards, unless there are several.
        folders = {shard.rpartition("/")[0] for shard in shards}
        self._common = len(min(folders)) if len(folders) == 1 else 0
        self.class_names = config.class_names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Sample:
        """The image as RGB with its captions; named by shard and key.

        Raises:
            UnreadableSample: a member is damaged or too long, or the shard has changed since it was scanned.
        """
        name, texts = self._name(index), self._texts(index)
        captions = {kind: self._values(texts, written, name) for kind, written in self._config.captions.items()}
        return Sample(
            image=decode(self._bytes(index, 0, name), name),
            identifier=name,
            captions={kind: values for kind, values in captions.items() if values},
            label=self._label(texts, name),
        )

    def label(self, index: int) -> int | None:
        """The label, without decoding the image."""
        return None if self._config.label is None else self._label(self._texts(index), self._name(index))

    def _name(self, index: int) -> str:
        shard = self._shards[self._shards_n[index]][self._common :].lstrip("/")
        return printable(f"{shard}/{self._names[index]}")

    def _texts(self, index: int) -> dict[str, bytes]:
        """The wanted members that the sample has, by extension."""
        name = self._name(index)
        return {
            extension: self._bytes(index, 1 + place, name, limit=MAX_TEXT)
            for place, extension in enumerate(self._wanted)
            if self._places_nM2[index, 1 + place, 0] >= 0
        }

    def _bytes(self, index: int, member: int, name: str, limit: int | None = None) -> bytes:
        start, size = self._places_nM2[index, member].tolist()
        if limit is not None and size > limit:
            raise UnreadableSample(name, f"a text of {size:,} bytes is longer than {limit:,}")
        shard = self._shards[self._shards_n[index]]
        filesystem, path = connect(shard, "WebDataset")
        try:
            content: bytes = filesystem.cat_file(path, start=start, end=start + size) if size else b""
        except (OSError, ValueError) as cause:
            raise UnreadableSample(name, f"{type(cause).__name__}: {cause}") from cause
        if len(content) != size:
            raise UnreadableSample(name, "its shard is shorter than when it was scanned: start the run anew")
        return content

    def _values(self, texts: Mapping[str, bytes], written: str, name: str) -> tuple[str, ...]:
        """The texts of a field; none where the sample lacks it."""
        found = _value(texts, Field.of(written), name)
        values = found if isinstance(found, list) else [] if found is None else [found]
        if not all(isinstance(value, str) for value in values):
            raise UnreadableSample(name, f"{written!r} must hold text, got {found!r:.80}")
        return tuple(value for value in values if value.strip())

    def _label(self, texts: Mapping[str, bytes], name: str) -> int | None:
        if self._config.label is None:
            return None
        found, names = _value(texts, Field.of(self._config.label), name), self.class_names
        if isinstance(found, str) and found.strip() in names:
            return names.index(found.strip())
        try:
            label = int(found) if isinstance(found, str | int) else -1
        except ValueError:
            label = -1
        if not 0 <= label < (len(names) or label + 1):
            known = f"one of {list(names)}" if names else "a number from 0 on (or set class_names)"
            raise UnreadableSample(name, f"{self._config.label!r} must hold a label, {known}, got {found!r:.80}")
        return label


def _value(texts: Mapping[str, bytes], field: Field, name: str) -> Any:
    """What a field holds: text, or whatever JSON has there; None where the sample lacks it."""
    content = texts.get(field.extension)
    if content is None:
        return None
    try:
        if field.key is None:
            return content.decode()
        document = json.loads(content)
    except (ValueError, RecursionError) as cause:
        raise UnreadableSample(name, f"its .{field.extension} is damaged: {type(cause).__name__}: {cause}") from cause
    return document.get(field.key) if isinstance(document, dict) else None
