"""Sources for tests of filters."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (70, 50)) -> Image.Image:
    """An image of smooth random colours; other seeds give other hashes."""
    colours_HWC = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(colours_HWC).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str = "PNG") -> bytes:
    """The content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, quality=90)
    return buffer.getvalue()


def captioned_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write a folder of images whose captions are ``NAME text``, of the kind ``alt``."""
    folder.mkdir()
    captions = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        captions.append(json.dumps({"file": name, "captions": {"alt": [f"{name} text"]}}))
    (folder / "captions.jsonl").write_text("\n".join(captions))
    return folder
