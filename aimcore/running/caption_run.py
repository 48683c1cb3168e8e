"""Captions of every image of a source, written as JSON lines that the source ``with_captions`` reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from aimcore.contracts.batches import Sample
from aimcore.contracts.errors import InvalidValue, UnreadableSample
from aimcore.contracts.sources import OpenSource
from aimcore.data.rendering import Renderer
from aimcore.evaluation.caption_generation import Sampling, generate
from aimcore.io.atomic_files import make_folder, replacing, require_new, write_atomically, writing
from aimcore.running.trained_model import TrainedModel

SAMPLES_PER_PART = 1024
_DESCRIPTION = "description.json"
Progress = Callable[[str, int, int], None]


@attrs.frozen(kw_only=True)
class Captioning:
    """How each image is captioned. Captions depend on all of these, and on the order of the source by rounding only."""

    sampling: Sampling | None
    num_samples: int = 1
    batch_size: int = 32
    max_tokens: int | None = None
    prompt: str | None = None


def caption_source(
    trained: TrainedModel,
    source: OpenSource,
    renderer: Renderer,
    out: Path,
    captioning: Captioning,
    description: Mapping[str, Any],
    progress: Progress = lambda *_: None,
) -> int:
    """Write ``out`` from where an earlier call stopped, and return the number of unreadable images.

    Parts are written whole to ``.NAME.captioning`` next to ``out``, whose batches are the same after an interruption.

    Raises:
        FileExists: ``out`` exists.
        InvalidValue: an unfinished file was begun with something else.
    """
    require_new(out)
    parts = out.with_name(f".{out.name}.captioning")
    _begin(parts, json.dumps({**description, "num_images": len(source)}, sort_keys=True, indent=1))
    files = []
    for first in range(0, len(source), SAMPLES_PER_PART):
        rows = range(first, min(first + SAMPLES_PER_PART, len(source)))
        files.append(parts / f"{first:012}.jsonl")
        if not files[-1].exists():
            lines = [
                line
                for start in rows[:: captioning.batch_size]
                for line in _lines(
                    trained, source, renderer, range(start, min(start + captioning.batch_size, rows.stop)), captioning
                )
            ]
            write_atomically(files[-1], "".join(lines))
        progress("captioning", rows.stop, len(source))
    num_lines = 0
    with replacing(out) as partial, partial.open("wb") as joined:
        for file in files:
            content = file.read_bytes()
            num_lines += content.count(b"\n")
            joined.write(content)
    shutil.rmtree(parts)
    return len(source) - num_lines


def _begin(parts: Path, text: str) -> None:
    make_folder(parts)
    place = parts / _DESCRIPTION
    with writing(place):
        found = place.read_text() if place.exists() else None
    if found not in (None, text):
        message = f"{parts} was begun with another model, source or settings: remove it, or name another file"
        raise InvalidValue("caption", [("out", message)])
    write_atomically(place, text)


def _lines(
    trained: TrainedModel, source: OpenSource, renderer: Renderer, rows: range, captioning: Captioning
) -> list[str]:
    identifiers, renderings = [], []
    for row in rows:
        try:
            sample: Sample = source.read(row)
        except UnreadableSample:
            continue
        identifiers.append(sample.identifier)
        renderings.append(renderer.for_evaluation(sample))
    if not identifiers:
        return []
    text = trained.experiment.objective.text
    assert text is not None
    images = renderer.together(renderings).images.to(next(trained.module.parameters()).device)
    draws = [
        generate(
            trained.module, images, *text, captioning.sampling, keys=[_key(one) for one in identifiers], draw=draw,
            max_tokens=captioning.max_tokens, prompt=captioning.prompt,
        )
        for draw in range(captioning.num_samples)
    ]  # fmt: skip
    return [
        json.dumps({"identifier": identifier, "captions": [one.text for one in captions]}) + "\n"
        for identifier, captions in zip(identifiers, zip(*draws, strict=True), strict=True)
    ]


def _key(identifier: str) -> int:
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:7])
