"""Captions of every image of a source, written as JSON lines that the source ``with_captions`` reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from loguru import logger

from aimcore.contracts.batches import Sample
from aimcore.contracts.errors import AimcoreError, DataNotFound, InvalidValue, UnreadableSample
from aimcore.contracts.messages import printable
from aimcore.contracts.sources import OpenSource, Source
from aimcore.data.rendering import Renderer, renderer_of
from aimcore.evaluation.caption_generation import Sampling, generate
from aimcore.evaluation.feature_keys import weights_digest
from aimcore.io.atomic_files import make_folder, replacing, require_new, write_atomically, writing
from aimcore.recipe.writing import plain
from aimcore.running.folder_lock import FolderLock
from aimcore.running.image_sources import require_apart
from aimcore.running.trained_model import TrainedModel

SAMPLES_PER_PART = 1024
_DESCRIPTION, _LISTING = "description.json", "captions.jsonl"
Progress = Callable[[str, int, int], None]


class SameIdentifier(AimcoreError):
    """Two samples have one identifier, so captions could not be told apart."""


@attrs.frozen(kw_only=True)
class Captioning:
    """How images are captioned. Apart from rounding, a caption depends on these and on the sample, and nothing else."""

    sampling: Sampling | None = None
    """How tokens are sampled, keyed by the identifier of the sample; None selects the likeliest token."""
    num_captions: int = 1
    """Captions of each image."""
    batch_size: int = 32
    max_tokens: int | None = None
    prompt: str | None = None
    area: int | None = None
    """Largest number of patches of an image; None for square crops as in validation."""


def caption_source(
    trained: TrainedModel,
    source: Source,
    out: Path,
    captioning: Captioning,
    *,
    progress: Progress = lambda *_: None,
) -> tuple[int, int]:
    """Write captions of all samples to ``out``, from where an earlier call stopped.

    Finished parts are in the folder ``.NAME.captioning`` next to ``out`` until all are there. Batches never cross
    parts, so the file has equal bytes after any interruption. One batch of images is held, and one part of text.

    Returns:
        The number of captioned samples, and of those that cannot be read, which are left out and logged.

    Raises:
        FileExists: ``out`` exists.
        InvalidValue: ``out`` would turn a folder of images into a captioned one, or an unfinished file was begun with
            another model, source or settings.
        SameIdentifier: two samples have one identifier.
        DataNotFound: no sample can be read.
        RunFolderError: another process writes there.
    """
    require_new(out)
    if out.name == _LISTING:  # a folder of images with this file is another source
        require_apart(source, out)
    opened = source.open()
    parts = out.with_name(f".{out.name}.captioning")
    make_folder(parts)
    trained.module.to("cuda" if torch.cuda.is_available() else "cpu")
    with FolderLock(parts):
        _begin(parts, _description(trained, source, len(opened), captioning))
        files = list(_written(trained, opened, parts, captioning, progress))
        num_captioned = _join(files, out)
    shutil.rmtree(parts, ignore_errors=True)
    return num_captioned, len(opened) - num_captioned


def _description(trained: TrainedModel, source: Source, number: int, captioning: Captioning) -> str:
    about = {
        "weights": weights_digest(trained.module), "source": plain(source), "num_samples": number,
        "samples_per_part": SAMPLES_PER_PART, "captioning": attrs.asdict(captioning),
    }  # fmt: skip
    return json.dumps(about, sort_keys=True, indent=1)


def _begin(parts: Path, text: str) -> None:
    place = parts / _DESCRIPTION
    with writing(place):
        found = place.read_text(encoding="utf-8") if place.exists() else None
    if found not in (None, text):
        message = f"{parts} was begun with another model, source or settings: remove it, or name another file"
        raise InvalidValue("caption", [("out", message)])
    write_atomically(place, text)


def _written(
    trained: TrainedModel, source: OpenSource, parts: Path, captioning: Captioning, progress: Progress
) -> Iterator[Path]:
    """Write the parts that are missing; yield the files of all."""
    renderer = renderer_of(trained.experiment.data, trained.experiment.trunk.patch_size, captioning.area)
    seen: set[str] = set()
    for first in range(0, len(source), SAMPLES_PER_PART):
        rows = range(first, min(first + SAMPLES_PER_PART, len(source)))
        file = parts / f"{first:012}.jsonl"
        if not file.exists():
            write_atomically(file, "".join(_lines_of(trained, source, renderer, rows, captioning)))
        for line in file.read_text(encoding="utf-8").splitlines():
            if (identifier := json.loads(line)["identifier"]) in seen:
                raise SameIdentifier(
                    f"two samples are called {printable(identifier)}: captions are matched by names, so give each "
                    "sample its own ('aimcore data convert' numbers them)"
                )
            seen.add(identifier)
        progress("captioning", rows.stop, len(source))
        yield file


def _join(files: list[Path], out: Path) -> int:
    """Publish the lines of all parts; return their number."""
    num_lines = 0
    with replacing(out) as partial, partial.open("wb") as joined:
        for file in files:
            content = file.read_bytes()
            num_lines += content.count(b"\n")
            joined.write(content)
        if not num_lines:
            raise DataNotFound("no sample of the source can be read; the log names them")
    return num_lines


def _lines_of(
    trained: TrainedModel, source: OpenSource, renderer: Renderer, rows: range, captioning: Captioning
) -> Iterator[str]:
    for start in range(0, len(rows), captioning.batch_size):
        yield from _lines(trained, source, renderer, rows[start : start + captioning.batch_size], captioning)


def _lines(
    trained: TrainedModel, source: OpenSource, renderer: Renderer, rows: range, captioning: Captioning
) -> list[str]:
    identifiers, renderings = [], []
    for row in rows:
        try:
            sample: Sample = source.read(row)
        except UnreadableSample as failure:
            logger.warning("left out: {}", failure)
            continue
        identifiers.append(sample.identifier)
        renderings.append(renderer.for_evaluation(sample))
    if not identifiers:
        return []
    text = trained.experiment.objective.text
    assert text is not None
    images = renderer.together(renderings).images.to(next(trained.module.parameters()).device)
    keys = [_key(one) for one in identifiers]
    draws = [
        generate(
            trained.module, images, *text, captioning.sampling, keys=keys, draw=draw,
            max_tokens=captioning.max_tokens, prompt=captioning.prompt,
        )
        for draw in range(captioning.num_captions)
    ]  # fmt: skip
    captions = zip(*draws, strict=True)
    return [_line(name, [one.text for one in some]) for name, some in zip(identifiers, captions, strict=True)]


def _line(identifier: str, captions: list[str]) -> str:
    entry: Mapping[str, Any] = {"identifier": identifier, "captions": captions}
    return json.dumps(entry) + "\n"


def _key(identifier: str) -> int:
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:7])
