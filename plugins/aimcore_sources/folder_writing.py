"""Writing of image files in a folder, with labels and captions in a file of JSON lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aimcore import Source
from aimcore.contracts.sample_writers import Written, WrittenSample
from aimcore.io.atomic_files import make_folder, replacing, writing
from aimcore_sources.numbered_files import LocalWriter, require_all_labelled
from aimcore_sources.stored_images import image_file

LISTING = "captions.jsonl"


class FolderWriter(LocalWriter):
    """Files ``CLASS/NUMBER.jpg``, and ``captions.jsonl`` with the file, captions and class of each sample."""

    owner = "CaptionedFolder"

    def write_part(
        self, folder: Path, part: int, samples: Iterable[WrittenSample], class_names: tuple[str, ...]
    ) -> None:
        """Write the files of the samples, and their lines of the listing."""
        root, folders, lines = folder / "out" / self._path.name, _folders(class_names), list[str]()
        make_folder(root)
        for one in samples:
            content, ending = image_file(one)
            label = one.sample.label
            inside = "" if label is None else f"{folders[label] if label < len(folders) else label}/"
            name = f"{inside}{one.index:08}.{ending}"
            with writing(root / name):
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_bytes(content)
            lines.append(json.dumps(_line(name, one, class_names)) + "\n")
        with replacing(folder / "spool" / f"{part:05}.jsonl") as partial:
            partial.write_text("".join(lines), encoding="utf-8")

    def finish(self, folder: Path, written: Written) -> Source:
        """Join the listing."""
        require_all_labelled(written, self.owner)
        with replacing(folder / "out" / self._path.name / LISTING) as partial, partial.open("wb") as listing:
            for part in range(written.num_parts):
                listing.write((folder / "spool" / f"{part:05}.jsonl").read_bytes())
        return self._source(url=self._url)


def _line(name: str, one: WrittenSample, class_names: tuple[str, ...]) -> dict[str, Any]:
    label = one.sample.label
    line: dict[str, Any] = {"file": name}
    if one.sample.captions:
        line["captions"] = {kind: list(texts) for kind, texts in one.sample.captions.items()}
    if label is not None:
        line["label"] = class_names[label] if label < len(class_names) else label
    return line


def _folders(class_names: tuple[str, ...]) -> list[str]:
    """Return the name of a folder for each class: its own as far as file systems allow."""
    names = [re.sub(r"[^\w ,.-]+", "_", name).strip(" .")[:100] for name in class_names]
    counts = Counter(name.lower() for name in names)
    return [
        name if name and counts[name.lower()] == 1 else f"{label:05}-{name}".rstrip("-")
        for label, name in enumerate(names)
    ]
