"""Images with captions in tar shards, read by index: any sample at any time, without streaming and shuffle buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import attrs

from aimcore import OpenSource, Problem, Sample, Source, UnreadableSample, component
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.messages import printable
from aimcore.contracts.sample_writers import SampleWriter
from aimcore.io.image_files import MAX_PIXELS, decode
from aimcore.io.locations import location_problems
from aimcore.io.retries import StoreUnavailable, with_retries
from aimcore.io.text_files import DamagedText, decode_text, parse_json
from aimcore_sources.decoding import connect, pixel_problems
from aimcore_sources.webdataset_index import Place
from aimcore_sources.webdataset_samples import Samples
from aimcore_sources.webdataset_shards import expand, without_braces
from aimcore_sources.webdataset_tar import ShardError
from aimcore_sources.webdataset_writing import ShardWriter

MAX_TEXT = 1_000_000
"""A longer caption or JSON member, in bytes, is not read."""


class Field(NamedTuple):
    """The place of a caption or label: the text of a member, or a key of a JSON member."""

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

    The shards' headers are scanned once and stored in small index files, so that every sample can be read by number and
    a resumed run continues exactly. Samples are looked up in these files, of about 70 bytes each, so that billions of
    them take no memory; sources that read other captions of the same shards share the files. A sample without a caption
    of a kind has no caption of that kind. Samples without an image, and members that no field names, are left out and
    counted: the key of ``photo.1.jpg`` is ``photo`` and its extension ``1.jpg``. Nothing is unpacked: the name of a
    member is never used as a path.

    A shard is a plain tar file with its end mark. One that is cut, damaged in a header, compressed, or concatenated
    from several files is an error that names the byte. Tar has checksums of headers only: other damage shows when an
    image is decoded, or not at all.
    """

    url: str
    """A path or URL; ``{00000..00123}`` and ``{a,b}`` are expanded, ``*`` is looked up."""
    images: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Extensions of images; of several in a sample the first is used."""
    captions: Mapping[str, str] = attrs.field(factory=lambda: {"alt": "txt"})
    """The member with the captions of each kind: ``{"alt": "txt", "synthetic": "json#synthetic"}``. A JSON key may have
    one text or several."""
    label: str | None = None
    """The member with the label, as a number or one of ``class_names``: ``"cls"``, ``"json#category"``."""
    class_names: tuple[str, ...] = ()
    """Names of the labels."""
    cache_folder: str | None = None
    """Folder of the indices. By default each is next to its shard, and those of remote shards are in memory, made again
    in each run: set a folder if there are many."""
    max_pixels: int = MAX_PIXELS
    """An image with more pixels is unreadable: it is treated as a decompression bomb."""

    def problems(self) -> Iterable[Problem]:
        """Yield fields without an extension, and a refused protocol."""
        # Braces rarely expand to protocols: all shards are checked when they are opened.
        yield from location_problems("url", next(without_braces(self.url)))
        yield from pixel_problems(self.max_pixels)
        if not self.images:
            yield Problem("images", "name at least one extension, such as 'jpg'")
        for kind, written in self.captions.items():
            if not Field.of(written).extension:
                yield Problem("captions", f"{kind!r} must name a member's extension, such as 'txt', got {written!r}")

    def open(self) -> OpenSource:
        """Find the samples in all shards.

        Raises:
            DataNotFound: a shard is missing, or there is no image in any.
            ShardError: a shard is damaged, or has a member twice.
        """
        shards = expand(self.url)
        images = tuple(extension.lower() for extension in self.images)
        samples = Samples(shards, images, self.cache_folder, self._fields())
        if not len(samples):
            looked = f"{len(shards)} shards of {self.url}" if len(shards) > 1 else self.url
            raise DataNotFound(f"WebDataset: no image in {looked} (looked for members ending in {self.images})")
        return OpenWebDataset(self, samples)

    def writer(self) -> SampleWriter:
        """Return a writer of shards; ``url`` is a tar file, or has one ``*`` for the number of the shard."""
        return ShardWriter(self.url, WebDataset)

    def _fields(self) -> tuple[str, ...]:
        """Return the extensions of members with captions or labels."""
        extensions = [Field.of(written).extension for written in (*self.captions.values(), self.label or "")]
        return tuple(dict.fromkeys(extension for extension in extensions if extension))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the shards are the user's."""
        return ()


class _Sample(NamedTuple):
    """The place of a sample, and its name."""

    shard: str
    name: str
    members: Mapping[str, Place]


class OpenWebDataset(OpenSource):
    """Samples whose places in the shards are known. It has no open file, so that it can be sent to data workers."""

    def __init__(self, config: WebDataset, samples: Samples) -> None:
        self._config = config
        self._samples = samples
        self._wanted = config._fields()
        self.left_out = samples.left_out
        self._images = tuple(extension.lower() for extension in config.images)
        # Names of samples leave out the folder of the shards, unless there are several.
        folders = {shard.rpartition("/")[0] for shard in samples.shards}
        self._common = len(min(folders)) if len(folders) == 1 else 0
        self.class_names = config.class_names

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Sample:
        """Return the image as RGB with its captions; see :meth:`read_with_file`."""
        return self.read_with_file(index)[0]

    def read_with_file(self, index: int) -> tuple[Sample, bytes]:
        """Return the sample, whose identifier is shard and key, and the member with its image.

        Raises:
            UnreadableSample: a member is damaged or too long, or the shard has changed since it was scanned.
        """
        sample = self._at(index)
        texts, name = self._texts(sample), sample.name
        captions = {kind: self._values(texts, written, name) for kind, written in self._config.captions.items()}
        image = next(sample.members[extension] for extension in self._images if extension in sample.members)
        content = _bytes(sample, image)
        read = Sample(
            image=decode(content, name, self._config.max_pixels),
            identifier=name,
            captions={kind: values for kind, values in captions.items() if values},
            label=self._label(texts, name),
        )
        return read, content

    def label(self, index: int) -> int | None:
        """Return the label, without decoding the image."""
        if self._config.label is None:
            return None
        sample = self._at(index)
        return self._label(self._texts(sample), sample.name)

    def _at(self, index: int) -> _Sample:
        shard = self._samples.shards[self._samples.shard_of(index)]
        name = shard[self._common :].lstrip("/")
        try:
            found = self._samples.at(index)
        except StoreUnavailable:
            raise
        except (DataNotFound, ShardError) as cause:
            raise UnreadableSample(printable(name), str(cause)) from cause
        return _Sample(shard, printable(f"{name}/{found.key}"), found.members)

    def _texts(self, sample: _Sample) -> dict[str, bytes]:
        """Return the requested members of the sample, by extension."""
        return {
            extension: _bytes(sample, sample.members[extension], limit=MAX_TEXT)
            for extension in self._wanted
            if extension in sample.members
        }

    def _values(self, texts: Mapping[str, bytes], written: str, name: str) -> tuple[str, ...]:
        """Return the texts of a field; none if the sample lacks it."""
        found = _value(texts, Field.of(written), name)
        values = found if isinstance(found, list) else [] if found is None else [found]
        if not all(isinstance(value, str) for value in values):
            raise UnreadableSample(name, f"{written!r} must contain text, got {found!r:.80}")
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
            raise UnreadableSample(name, f"{self._config.label!r} must contain a label, {known}, got {found!r:.80}")
        return label


def _bytes(sample: _Sample, place: Place, limit: int | None = None) -> bytes:
    """Return the content of a member."""
    start, size = place
    if limit is not None and size > limit:
        raise UnreadableSample(sample.name, f"a text of {size:,} bytes is longer than {limit:,}")
    filesystem, path = connect(sample.shard, "WebDataset")

    def read() -> bytes:
        found: bytes = filesystem.cat_file(path, start=start, end=start + size)
        return found

    try:
        content = with_retries(sample.shard, read) if size else b""
    except StoreUnavailable:
        raise
    except (OSError, ValueError) as cause:
        raise UnreadableSample(sample.name, f"{type(cause).__name__}: {cause}") from cause
    if len(content) != size:
        raise UnreadableSample(sample.name, "its shard is shorter than when it was scanned: start the run again")
    return content


def _value(texts: Mapping[str, bytes], field: Field, name: str) -> Any:
    """Return the content of a field: text, or a JSON value; None if the sample lacks it."""
    content = texts.get(field.extension)
    if content is None:
        return None
    member = f"its .{field.extension}"
    try:
        if field.key is None:
            return decode_text(content, member)
        document = parse_json(content, member)
    except DamagedText as cause:
        raise UnreadableSample(name, str(cause)) from cause
    return document.get(field.key) if isinstance(document, dict) else None
