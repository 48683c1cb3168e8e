"""Writing of tar shards in WebDataset's layout."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aimcore import Source
from aimcore.contracts.sample_writers import Written, WrittenSample
from aimcore.io.atomic_files import replacing
from aimcore_sources.numbered_files import LocalWriter, file_of_part, require_all_labelled
from aimcore_sources.stored_images import image_file


class ShardWriter(LocalWriter):
    """Members ``NUMBER.jpg`` with the image, and ``NUMBER.json`` with identifier, label, class and captions by kind."""

    owner = "WebDataset"
    is_numbered = True

    def write_part(
        self, folder: Path, part: int, samples: Iterable[WrittenSample], class_names: tuple[str, ...]
    ) -> None:
        """Write one shard."""
        with replacing(folder / "out" / file_of_part(self._path, part)) as partial, tarfile.open(partial, "w") as tar:
            for one in samples:
                content, ending = image_file(one)
                _add(tar, f"{one.index:08}.{ending}", content)
                if (about := _about(one, class_names)) is not None:
                    _add(tar, f"{one.index:08}.json", json.dumps(about).encode())

    def finish(self, folder: Path, written: Written) -> Source:
        """Return the source that reads the shards."""
        require_all_labelled(written, self.owner)
        captions = {kind: f"json#{kind}" for kind in written.caption_kinds}
        label = "json#label" if written.num_labelled else None
        names = written.class_names if label else ()
        return self._source(url=self._url, captions=captions, label=label, class_names=names)


def _about(one: WrittenSample, class_names: tuple[str, ...]) -> Mapping[str, Any] | None:
    """Return the JSON member; None if there is nothing to say: it would be counted as unused."""
    label, captions = one.sample.label, {kind: list(texts) for kind, texts in one.sample.captions.items()}
    if label is None and not captions:
        return None
    named: dict[str, Any] = {} if label is None else {"label": label}
    named |= {"class": class_names[label]} if label is not None and label < len(class_names) else {}
    return {"identifier": one.sample.identifier, **captions, **named}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))
