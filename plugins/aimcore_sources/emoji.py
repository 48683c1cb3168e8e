"""Emoji with their names as captions, which are included in the package, so that captioning needs no download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from aimcore import OpenSource, PixelStatistics, Problem, Sample, Source, component

Style = Literal["google", "twitter"]
Labels = Literal["category", "subcategory"]

SIZE = 32
"""Side of an image, in pixels."""
_TEST_SHARE = 0.2
_WHITE = 250
"""Pixels that are this bright in all channels are margin: the compression of the sheets leaves traces."""
_ASSETS = resources.files("aimcore_sources") / "assets"


@component("bundled_emoji")
class BundledEmoji(Source):
    """7,562 emoji, 32 x 32 px on white: 3,781 drawings in each of two styles, with names, categories and skin tones.

    Captions of kind ``"name"`` are Unicode names in lower case ("waving hand sign, dark skin tone"), those of kind
    ``"short"`` other names in use ("wave, dark skin tone"). Labels are categories, whose names can be classes of
    zero-shot classification. ``extras`` has category, subcategory, concept, style and skin tone.

    A hash decides whether a concept (335 of 1,673) is in the test split, with all its skin tones, genders, ages,
    directions and styles, and with emoji that one style draws identically (flags of Spain, and Ceuta and Melilla). So
    no test image is in the training split, not even under another name. Images: Noto Emoji (Apache-2.0) and Twemoji
    (CC-BY-4.0); ``assets/EMOJI_LICENSES.md`` has the licences, ``assets/make_emoji.py`` made the sheets.
    """

    split: Literal["train", "test", "all"] = "train"
    """The split."""
    styles: tuple[Style, ...] = ("google", "twitter")
    """The sets of drawings."""
    skin_tones: bool = True
    """Whether the five skin tones of people and hands are included (half of all images), besides the yellow one."""
    labels: Labels = "category"
    """The label: one of 9 categories, or of 98 subcategories."""
    trim: bool = False
    """Whether the white margin is cropped, so that images have many aspect ratios (for native resolution)."""

    def problems(self) -> Iterable[Problem]:
        """Yield styles that are repeated or missing."""
        if not self.styles or len(set(self.styles)) < len(self.styles):
            yield Problem("styles", f"name 'google', 'twitter' or both, each once, got {self.styles}")

    @property
    def statistics(self) -> PixelStatistics:
        """The statistics of the training split with both styles and all skin tones; others differ by less than 0.03."""
        if self.trim:
            return PixelStatistics(mean=(0.7697, 0.7030, 0.6535), std=(0.2921, 0.2954, 0.3343))
        return PixelStatistics(mean=(0.8019, 0.7445, 0.7019), std=(0.2824, 0.2927, 0.3325))

    def open(self) -> OpenSource:
        """Find the drawings. They are read into memory with the first sample, once per process."""
        every = _tiles()
        names = tuple(sorted({tile.row[self.labels] for tile in every}))
        return OpenEmoji(self, [tile for tile in every if self._takes(tile)], names)

    def _takes(self, tile: Tile) -> bool:
        wanted = self.split == "all" or is_test(tile.row["concept"]) == (self.split == "test")
        return wanted and (self.skin_tones or not tile.tone)


class Tile(NamedTuple):
    """A drawing, in every style."""

    place: int
    """Index on the sheets."""
    row: dict[str, Any]
    """The entry of the base emoji."""
    code: str
    tone: str
    """``"dark"``, ``"light and medium"`` for two people, or empty."""


def is_test(concept: str) -> bool:
    """Return whether a concept belongs to the test split, from its hash only."""
    digest = hashlib.blake2b(concept.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < _TEST_SHARE * 2**64


@cache
def _tiles() -> tuple[Tile, ...]:
    """Return the drawings in the order of the sheets."""
    rows = json.loads((_ASSETS / "emoji.json").read_text(encoding="utf-8"))
    drawings = [(row, *drawing) for row in rows for drawing in zip(row["codes"], row["tones"], strict=True)]
    return tuple(Tile(place, *drawing) for place, drawing in enumerate(drawings))


@cache
def _pictures(style: Style) -> npt.NDArray[np.uint8]:
    """Return every tile of a sheet, ``[n, 3, SIZE, SIZE]``, read-only because every open source shares them."""
    with (_ASSETS / f"emoji_{style}.webp").open("rb") as file, Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    height, width = pixels.shape[0] // SIZE, pixels.shape[1] // SIZE
    tiles = pixels.reshape(height, SIZE, width, SIZE, 3).transpose(0, 2, 4, 1, 3)
    pictures = tiles.reshape(-1, 3, SIZE, SIZE)
    pictures.setflags(write=False)
    return pictures


def trimmed(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the smallest rectangle of an image ``[3, H, W]`` with everything that is not white, or the whole image."""
    drawn = np.any(picture < _WHITE, axis=0)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):
        return picture
    return picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


class OpenEmoji(OpenSource):
    """Drawings in memory: all styles of one emoji, then the next one."""

    def __init__(self, source: BundledEmoji, tiles: list[Tile], class_names: tuple[str, ...]) -> None:
        self._source = source
        self._tiles = tiles
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._tiles) * len(self._source.styles)

    def read(self, index: int) -> Sample:
        """Return the drawing with its captions; its identifier is style and code."""
        number, style = self._at(index)
        tile = self._tiles[number]
        name, *short = tile.row["names"]
        captions = {"name": [name], "short": short}
        toned = {kind: tuple(_with_tone(text, tile.tone) for text in texts) for kind, texts in captions.items()}
        known = {key: tile.row[key] for key in ("category", "subcategory", "concept")}
        return Sample(
            image=torch.from_numpy(self._picture(style, number).copy()),
            identifier=f"{style}/{tile.code}",
            captions={kind: texts for kind, texts in toned.items() if texts},
            label=self.label(index),
            extras={**known, "style": style, "skin_tone": tile.tone},
        )

    def _picture(self, style: Style, number: int) -> npt.NDArray[np.uint8]:
        picture = _pictures(style)[self._tiles[number].place]
        return trimmed(picture) if self._source.trim else picture

    def label(self, index: int) -> int:
        """Return the category or subcategory."""
        return self.class_names.index(self._tiles[self._at(index)[0]].row[self._source.labels])

    def _at(self, index: int) -> tuple[int, Style]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} emoji, no number {index}")
        number, place = divmod(index, len(self._source.styles))
        return number, self._source.styles[place]

    def __reduce__(self) -> tuple[object, tuple[BundledEmoji]]:
        """Make a data worker open the source itself, which is faster than sending it the drawings."""
        return _open, (self._source,)


def _open(source: BundledEmoji) -> OpenSource:
    return source.open()


def _with_tone(name: str, tone: str) -> str:
    if not tone:
        return name
    return f"{name}, {tone} skin tone{'s' if ' and ' in tone else ''}"
