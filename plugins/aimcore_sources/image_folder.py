"""Images in a folder, on disk or at a URL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from aimcore import InvalidValue, OpenSource, Problem, Sample, Source, component
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.sample_writers import SampleWriter
from aimcore.io.image_files import MAX_PIXELS, decode
from aimcore.io.locations import location_problems
from aimcore_sources.captioned_folder import CaptionedFolder
from aimcore_sources.class_names import names_of
from aimcore_sources.decoding import pixel_problems, read_file
from aimcore_sources.folder_writing import FolderWriter
from aimcore_sources.left_out import summarised
from aimcore_sources.listing import IMAGE_SUFFIXES, listing_of


@component("image_folder")
class ImageFolder(Source):
    """Images of a folder: either one sub-folder per class, or no sub-folders and no labels.

    The class is the first folder in ``url``; deeper folders only group files. Classes and files are sorted by
    name, so that indices and labels depend on names only. Links to files and folders are followed on local disks.
    Hidden files and folders, files of other kinds, broken links, and folders without an image are left out and counted.
    A split is a folder of its own: give its URL.
    """

    url: str
    """A path, or a URL like ``s3://bucket/imagenet/train``."""
    extensions: tuple[str, ...] = IMAGE_SUFFIXES
    """Suffixes of image files in lower case; suffixes of files are compared in lower case too."""
    names: str | None = None
    """A path or URL of a file with readable names of the class folders: a JSON object, or lines like ``n01440764 tench,
    Tinca tinca``, of which the first name is used. By default classes have the names of their folders."""
    max_pixels: int = MAX_PIXELS
    """An image with more pixels is unreadable: it is treated as a decompression bomb."""

    def problems(self) -> Iterable[Problem]:
        """Yield refused protocols, and a limit on pixels that Pillow does not allow."""
        yield from pixel_problems(self.max_pixels)
        yield from location_problems("url", self.url)
        if self.names is not None:
            yield from location_problems("names", self.names)

    def open(self) -> OpenSource:
        """List the folder, once.

        Raises:
            DataNotFound: the folder or the file ``names`` is missing, or the folder has no image.
            InvalidValue: some images are in class folders and some are not; or a folder has no name in ``names``.
        """
        listing = listing_of(self.url, "ImageFolder")
        names = listing.with_suffix(self.extensions)
        left_out = summarised(listing.left_out + listing.of_other_kinds(self.extensions))
        if not names:
            found = "".join(f"; found {count} {reason}" for reason, count in left_out.items())
            raise DataNotFound(
                f"ImageFolder: no image in {self.url} (looked for files ending in {', '.join(self.extensions)}"
                f"{found}): check the path, or set extensions"
            )
        folders = _folders(self.url, names)
        if empty := len(set(listing.folders).difference(folders)):
            left_out["folders without an image"] = empty
        opened = OpenImageFolder(self.url, tuple(names), folders, self._class_names(folders), self.max_pixels)
        opened.left_out = left_out
        return opened

    def writer(self) -> SampleWriter:
        """Return a writer of a folder with a listing; see :class:`aimcore_sources.folder_writing.FolderWriter`."""
        return FolderWriter(self.url, CaptionedFolder)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """No examples, because the folder is the user's."""
        return ()

    def _class_names(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        if self.names is None:
            return folders
        if not folders:
            message = f"{self.url} has no class folders that could have names: leave this field out"
            raise InvalidValue("ImageFolder", [("names", message)])
        return names_of(folders, self.names, "ImageFolder")


def _folders(url: str, names: list[str]) -> tuple[str, ...]:
    loose = [name for name in names if "/" not in name]
    if loose and len(loose) < len(names):
        message = (
            f"{len(loose)} images are directly in {url} (such as {loose[0]}), {len(names) - len(loose)} in class "
            "folders: move them all into class folders, or none"
        )
        raise InvalidValue("ImageFolder", [("url", message)])
    return () if loose else tuple(sorted({name.split("/")[0] for name in names}))


class OpenImageFolder(OpenSource):
    """A listed folder. It has no open connection, so that it can be sent to data workers."""

    def __init__(
        self,
        url: str,
        names: tuple[str, ...],
        folders: tuple[str, ...],
        class_names: tuple[str, ...],
        max_pixels: int,
    ) -> None:
        self._url = url
        self._names = names
        self._labels = {folder: label for label, folder in enumerate(folders)}
        self._max_pixels = max_pixels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Sample:
        """Return the image as RGB, upright according to its EXIF orientation; see :meth:`read_with_file`."""
        return self.read_with_file(index)[0]

    def read_with_file(self, index: int) -> tuple[Sample, bytes]:
        """Return the sample, whose identifier is its path in the folder, and the content of its file.

        Raises:
            UnreadableSample: the file is missing, truncated, not an image, or too large.
        """
        name = self._names[index]
        content = read_file(self._url, name)
        image = decode(content, name, self._max_pixels)
        return Sample(image=image, identifier=name, label=self.label(index)), content

    def label(self, index: int) -> int | None:
        """The label, from the file's path."""
        return self._labels.get(self._names[index].split("/")[0])

    def known_labels(self) -> npt.NDArray[np.int64]:
        """Return all labels, from the files' paths."""
        return np.array([self._labels.get(name.split("/")[0], -1) for name in self._names], dtype=np.int64)
