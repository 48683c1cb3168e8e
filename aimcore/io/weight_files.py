"""Files of weights in all formats, by path or URL: safetensors, torch's pickles, flax's msgpack, shards with an index.

The format is recognised by the content. A file is opened in two steps: names and shapes first, then values, so that a
file that does not fit is refused before its values are read. Nothing that a file names is ever called.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import IO, TypeVar

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aimcore.contracts.errors import AimcoreError, LocationError
from aimcore.contracts.messages import shown
from aimcore.io.fetched_files import FetchedFile, read_with
from aimcore.io.flax_files import NotFlax, flax_tensors
from aimcore.io.locations import file_system, is_on_web, local_path, with_store_errors
from aimcore.io.pickled_weights import NotTensors, pickled_tensors
from aimcore.io.retries import with_retries
from aimcore.io.run_folder import WEIGHTS_FILE, StudyFolder
from aimcore.io.tensor_files import NotSafetensors, read_header
from aimcore.io.weight_siblings import UnreadableWeights, beside, has_sibling, json_object, path_of, read_sibling

T = TypeVar("T")
INDEX_SUFFIX = ".index.json"
NAMES = (
    WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX, "pytorch_model.bin", "pytorch_model.bin.index.json",
    "flax_model.msgpack", "mlx_model.safetensors",
)  # fmt: skip
"""Files of weights in a folder, in order of preference; all hold the same model."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".msgpack")
SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
"""Ends of the names of files that hold a part of a model."""
_MOST_LISTED = 5
_OF_FOLDER = "give the URL of the file of weights, or that of its folder with / at the end"
Format = str


@attrs.frozen
class StoredFile:
    """One of the files that hold the weights."""

    url: str
    num_bytes: int
    sha256: str


@attrs.frozen(eq=False)
class StoredWeights:
    """Weights that were opened: their names and shapes are known, and their values are read by :meth:`load`."""

    url: str
    """The file, or the index of the shards."""
    format: Format
    """``"safetensors"``, ``"torch"`` or ``"flax"``."""
    shapes: Mapping[str, Tensor]
    """All tensors, on the meta device."""
    parts: tuple[FetchedFile, ...]
    """The files that hold the tensors: one, or several shards. Remote ones are fetched when their values are read."""
    _load: Callable[[], Mapping[str, Tensor]]
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    """Texts in the header of a safetensors file."""
    left_out: tuple[str, ...] = ()
    """Entries beside the model that hold no weights of it, such as the state of an optimizer."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors, on the meta device, as the header of a safetensors file names them."""
        return self.shapes

    @property
    def dtype(self) -> str:
        """The type of all floating numbers, such as ``"bfloat16"``; ``"mixed"`` if there are several."""
        kinds = list(kinds_of([value for value in self.shapes.values() if value.is_floating_point()]))
        return kinds[0] if len(kinds) == 1 else "mixed"

    def load(self) -> Mapping[str, Tensor]:
        """Read the values. Those of a local file are mapped into memory where the format allows it.

        Raises:
            UnreadableWeights: the file has changed, or is damaged.
        """
        return self._load()

    @cached_property
    def files(self) -> tuple[StoredFile, ...]:
        """Size and hash of every file. Computing them reads all files; remote ones are fetched once.

        Raises:
            UnreadableWeights: a file cannot be read.
        """
        return tuple(StoredFile(part.url, *_size_and_hash(part)) for part in self.parts)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Hash of the file. For shards, the hash of the text with a line of hash and name for each, as sha256sum."""
        if len(self.files) == 1:
            return self.files[0].sha256
        lines = [f"{file.sha256}  {posixpath.basename(path_of(file.url))}\n" for file in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def sibling(self, name: str) -> bytes | None:
        """Return the content of another file in the folder of the weights, or None if it does not exist.

        Raises:
            UnreadableWeights: there is one, but it is too large or cannot be read.
        """
        return read_sibling(self.url, name)


def open_weights(url: str) -> StoredWeights:
    """Open a file of weights, the index of shards, or a folder with one of the two.

    Raises:
        UnreadableWeights: there is nothing to read, the file is damaged or cut short, a shard is missing, the format
            is unknown, or a pickle holds more than tensors and plain values.
    """
    url = _file_in(url)
    if path_of(url).endswith(INDEX_SUFFIX):
        return _open_shards(url)
    start = _with_file(url, lambda file: file.read(16))
    if start[4:9] == b"\0\0\0\0{":  # the length of a header; its first bytes may be those of a pickle
        return _open_safetensors(url)
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return _open_pickle(url)
    if start[8:9] == b"{":
        return _open_safetensors(url)
    if start and (start[0] & 0xF0 == 0x80 or start[0] in (0xDE, 0xDF)):
        try:
            return _open_flax(url)
        except UnreadableWeights:
            # Any of 16 first bytes may begin flax's msgpack.
            if path_of(url).endswith(".safetensors"):
                raise UnreadableWeights(url, "it is not a safetensors file, or is damaged. Fetch it again") from None
            raise
    known = "a safetensors file, a file of torch.save, or flax's msgpack"
    hint = ". It is a JSON file: give the folder, or the file of weights" if start[:1] == b"{" else ""
    if start.lstrip()[:1] == b"<":
        hint = f". It is a web page: {_OF_FOLDER if is_on_web(url) else 'fetch the file itself'}"
    hint = ". It is a pointer of Git LFS, not the file itself: fetch the file" if start == b"version https://" else hint
    raise UnreadableWeights(url, f"it is {'empty. Fetch it again' if not start else f'not {known}'}{hint}")


def _file_in(url: str) -> str:
    """Return ``url``, or the preferred file of weights in it if it is a folder."""
    if not url:
        raise UnreadableWeights("an empty name", "give a file, a folder or a URL")
    try:
        files, path = file_system(url)
        # On the web, asking whether something is a folder would download it.
        if is_on_web(url):
            return _file_on_web(url)
        if not with_retries(url, lambda: files.isdir(path)):
            return url
        entries = with_retries(url, lambda: files.ls(path, detail=False))
        names = sorted(posixpath.basename(one.rstrip("/")) for one in entries)
    except AimcoreError as error:
        if isinstance(error, LocationError):
            raise UnreadableWeights(url, str(error)) from error
        raise
    except with_store_errors(OSError, ImportError, ValueError) as error:
        raise UnreadableWeights(url, str(error)) from error
    folder = url.rstrip("/")
    known = [name for name in NAMES if name in names]
    others = [name for name in names if name.endswith((*SUFFIXES, INDEX_SUFFIX))]
    chosen = known[:1] or (others if len(others) == 1 else [])
    if not chosen:
        raise UnreadableWeights(url, f"it is a folder, and {_found(url, others)}")
    return f"{folder}/{chosen[0]}"


def _found(url: str, others: Sequence[str]) -> str:
    """Say what a folder has that holds no usual file of weights."""
    path = None if others else local_path(url)
    runs = [] if path is None else StudyFolder(path).runs()
    listed = ", ".join((others or runs)[:_MOST_LISTED]) + ", ..." * (len(others or runs) > _MOST_LISTED)
    if runs:
        return f"it has the runs {listed}: give the folder of one of them"
    if not others:
        return f"it has none of {', '.join(NAMES)}"
    if all(SHARD.search(name) for name in others):
        return f"it has shards without their index: {listed}. Fetch the file that ends with {INDEX_SUFFIX} too"
    return f"it has {listed}: give one of them"


def _file_on_web(url: str) -> str:
    """Return ``url``, or of a folder, which ends with a slash, the first of the usual files that it has."""
    if not path_of(url).endswith("/"):
        return url
    for name in NAMES:
        if has_sibling(url, name):
            return beside(url, name)
    raise UnreadableWeights(
        url, f"it has none of {', '.join(NAMES)}, and folders on the web cannot be listed: give the URL of the file"
    )


def _open_safetensors(url: str) -> StoredWeights:
    file = FetchedFile(url)
    try:
        header = _with_file(url, read_header)
    except NotSafetensors as error:
        raise UnreadableWeights(url, f"it is not a safetensors file, or is damaged: {error}") from error

    def read() -> Mapping[str, Tensor]:
        try:
            # The file is mapped into memory, and only what is used of it is read.
            return load_file(_read(url, lambda: file.path))
        except (SafetensorError, OSError) as error:
            raise UnreadableWeights(url, f"it is not a safetensors file, or is damaged: {error}") from error

    return StoredWeights(url, "safetensors", header.tensors, (file,), read, header.metadata)


def _open_pickle(url: str) -> StoredWeights:
    file = FetchedFile(url)
    try:
        tensors, left_out = pickled_tensors(_read(url, lambda: file.path))
    except NotTensors as error:
        raise UnreadableWeights(url, str(error)) from error
    return StoredWeights(url, "torch", _shapes(tensors), (file,), lambda: tensors, left_out=left_out)


def _open_flax(url: str) -> StoredWeights:
    file = FetchedFile(url)
    try:
        tensors = flax_tensors(_read(url, lambda: file.path.read_bytes()))
    except NotFlax as error:
        raise UnreadableWeights(url, str(error)) from error
    return StoredWeights(url, "flax", _shapes(tensors), (file,), lambda: tensors)


def _open_shards(url: str) -> StoredWeights:
    """Open all shards of an index. Each must exist, and hold the tensors that the index names, and no others."""
    shards = _shards_in(url)
    missing = [name for name in shards if not has_sibling(url, name)]
    if missing:
        raise UnreadableWeights(
            url, f"{len(missing)} of its {len(shards)} shards are missing: {', '.join(missing[:5])}. Fetch them"
        )
    opened = {name: open_weights(beside(url, name)) for name in shards}
    for name, one in opened.items():
        lacking, extra = shards[name] - one.shapes.keys(), one.shapes.keys() - shards[name]
        if lacking or extra:
            what = f"lacks {sorted(lacking)[0]}" if lacking else f"also has {sorted(extra)[0]}"
            raise UnreadableWeights(url, f"its shard {name} {what}: the index belongs to other files")
    formats = sorted({one.format for one in opened.values()})
    return StoredWeights(
        url,
        ", ".join(formats),
        {name: value for one in opened.values() for name, value in one.shapes.items()},
        tuple(part for one in opened.values() for part in one.parts),
        lambda: {name: value for one in opened.values() for name, value in one.load().items()},
        {name: text for one in opened.values() for name, text in one.metadata.items()},
    )


def _shards_in(url: str) -> dict[str, set[str]]:
    """Return the tensors of each shard that an index names."""
    content = read_sibling(url, posixpath.basename(path_of(url)))
    if content is None:
        raise UnreadableWeights(url, "there is no such file")
    places = (json_object(content, url) or {}).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UnreadableWeights(url, "it is not the index of shards: it has no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or name != posixpath.basename(name) or not name or not name.isprintable():
            raise UnreadableWeights(url, f"it names the shard {shown(name)}, which is not the name of a file beside it")
        shards.setdefault(name, set()).add(tensor)
    return dict(sorted(shards.items()))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty_like(value, device="meta") for name, value in tensors.items()}


def _with_file(url: str, use: Callable[[IO[bytes]], T]) -> T:
    """Open a file for reading from its beginning, and translate what file systems raise."""
    return _read(url, lambda: read_with(url, use))


def _read(url: str, read: Callable[[], T]) -> T:
    """Return what ``read`` returns, and translate what file systems raise."""
    try:
        return read()
    except LocationError as error:
        raise UnreadableWeights(url, str(error)) from error
    except FileNotFoundError as error:
        hint = f". If it is a folder, {_OF_FOLDER}" if is_on_web(url) else ""
        raise UnreadableWeights(url, f"there is no such file{hint}") from error
    except AimcoreError:
        raise
    except with_store_errors(OSError, ImportError, ValueError) as error:
        raise UnreadableWeights(url, f"{type(error).__name__}: {error}") from error


def _size_and_hash(file: FetchedFile) -> tuple[int, str]:
    return _read(file.url, lambda: file.size_and_hash)


def kinds_of(values: Sequence[Tensor]) -> Iterator[str]:
    """Yield the kinds of numbers in ``values``, each once: ``"float32"``."""
    yield from dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in values)
