"""Coloured clothes with captions for ``benchmarks/data_at_scale.py``, with planted copies, flaws and test images."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from aimcore_sources import FashionMNIST

Pixels = npt.NDArray[np.uint8]
SIDE = 32
COLOURS = {
    "red": (230, 60, 50), "green": (70, 200, 80), "blue": (70, 110, 240), "yellow": (240, 220, 60),
    "pink": (250, 150, 200), "white": (245, 245, 245), "orange": (250, 150, 40), "cyan": (80, 220, 230),
}  # fmt: skip
GROUNDS = {"black": (10, 10, 10), "brown": (85, 50, 25), "navy": (15, 20, 90), "olive": (70, 75, 20)}
CLOTHES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
COPIES = {"equal pixels": 0.01, "JPEG copy": 0.005, "copy of twice the size": 0.005}
"""Shares of the pool that copy another sample of it."""
TEST_IMAGES = {
    "test image": 0.0025, "test image as JPEG": 0.0025, "test image mirrored": 0.0025, "test image cropped": 0.0025,
}  # fmt: skip
FLAWS = {"broken file": 0.001, "no caption": 0.01, "wrong caption": 0.05}
PLAIN = "nothing planted"


@attrs.frozen
class Drawing:
    """How a picture is drawn: what it shows is its caption."""

    garment: int
    """Number in Fashion-MNIST's split."""
    colour: str
    ground: str
    is_mirrored: bool
    seed: int

    def caption(self, label: int) -> str:
        """Return what the picture shows."""
        return f"{self.colour} {CLOTHES[label]} on {self.ground}"


class Wardrobe:
    """Draws the clothes of a split."""

    def __init__(self, split: str, seed: int) -> None:
        """Read the split; ``seed`` chooses the colours."""
        source = FashionMNIST(split="test" if split == "test" else "train").open()
        labels = source.known_labels()
        assert labels is not None
        self._grey_nHW = np.stack([source.read(index).image[0].numpy() for index in range(len(source))])
        self._labels_n, self._seed = labels, seed

    def drawing(self, number: int) -> Drawing:
        """Return drawing ``number``. After all clothes of the split they begin again, mirrored."""
        generator = np.random.default_rng([self._seed, number])
        turn, garment = divmod(number, len(self._grey_nHW))
        colour, ground = generator.choice(list(COLOURS)), generator.choice(list(GROUNDS))
        return Drawing(garment, str(colour), str(ground), turn % 2 == 1, int(generator.integers(2**31)))

    def caption(self, drawing: Drawing) -> str:
        """Return what the picture shows."""
        return drawing.caption(int(self._labels_n[drawing.garment]))

    def picture(self, drawing: Drawing) -> Image.Image:
        """Draw the picture, 32 x 32 pixels, with a little noise."""
        share_HW1 = np.pad(self._grey_nHW[drawing.garment], 2)[..., None] / 255
        colour, ground = np.array(COLOURS[drawing.colour]), np.array(GROUNDS[drawing.ground])
        noise_HWC = np.random.default_rng(drawing.seed).normal(0, 4, (SIDE, SIDE, 3))
        pixels = np.clip(share_HW1 * colour + (1 - share_HW1) * ground + noise_HWC, 0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels)
        return ImageOps.mirror(picture) if drawing.is_mirrored else picture


def changed(picture: Image.Image, kind: str) -> bytes:
    """Return the file of a planted picture."""
    if kind in ("JPEG copy", "test image as JPEG"):
        return encoded(picture, "JPEG")
    if kind == "copy of twice the size":
        picture = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    if kind == "test image mirrored":
        picture = ImageOps.mirror(picture)
    if kind == "test image cropped":
        picture = picture.crop((2, 3, SIDE - 1, SIDE)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return encoded(picture, "BMP" if kind == "equal pixels" else "PNG")


def encoded(picture: Image.Image, form: str) -> bytes:
    """Return the picture as a file."""
    content = io.BytesIO()
    picture.save(content, form, **({"quality": 85} if form == "JPEG" else {}))
    return content.getvalue()


@attrs.frozen
class Planted:
    """What was planted at a position of the pool."""

    kind: str
    of: int
    """Number of the sample that it copies, or of the test image; -1 for others."""
    caption: str
    """What the picture shows; empty for broken files."""


def plan(number: int, num_test: int) -> list[tuple[str, int]]:
    """Return kind and original of every position of the pool; originals are positions with nothing planted."""
    order = np.random.default_rng(0).permutation(number).tolist()
    found = [(PLAIN, -1)] * number
    tests = iter(range(num_test))
    for kind, share in {**COPIES, **TEST_IMAGES, **FLAWS}.items():
        for _ in range(max(1, round(share * number))):
            of = order.pop(0) if kind in COPIES else next(tests) if kind in TEST_IMAGES else -1
            found[order.pop()] = (kind, of)
    return found


def write_pool(folder: Path, number: int) -> list[Planted]:
    """Write the pool with its captions, and the test images, below ``folder``; return what was planted."""
    clothes, test = Wardrobe("train", 0), Wardrobe("test", 1)
    num_test = min(10_000, max(100, number // 10))
    _write(folder / "test", ((encoded(test.picture(test.drawing(index)), "PNG"), None) for index in range(num_test)))
    planned, generator = plan(number, num_test), np.random.default_rng(5)
    planted: list[Planted] = []

    def samples() -> Iterator[tuple[bytes, str | None]]:
        for index, (kind, of) in enumerate(planned):
            wardrobe = test if kind in TEST_IMAGES else clothes
            drawing = wardrobe.drawing(index if of < 0 else of)
            content = encoded(wardrobe.picture(drawing), _form(index))
            if kind in TEST_IMAGES:
                content = changed(wardrobe.picture(drawing), kind)
            elif kind in COPIES:
                content = changed(Image.open(io.BytesIO(encoded(wardrobe.picture(drawing), _form(of)))), kind)
            elif kind == "broken file":
                content = content[: len(content) // 2] if index % 2 else generator.bytes(300)
            caption = wardrobe.caption(drawing)
            planted.append(Planted(kind, of, caption))
            if kind == "wrong caption":
                caption = clothes.caption(clothes.drawing(int(generator.integers(60_000))))
            yield content, None if kind == "no caption" else caption

    _write(folder / "raw", samples())
    return planted


def _form(index: int) -> str:
    return "JPEG" if index % 3 == 0 else "PNG"


def write_training(folder: Path, numbers: range) -> None:
    """Write captioned images of which nothing is wrong: clothes of the training split in other colours."""
    wardrobe = Wardrobe("train", 2)
    drawings = [wardrobe.drawing(7 * number) for number in numbers]
    _write(folder, ((encoded(wardrobe.picture(one), "PNG"), wardrobe.caption(one)) for one in drawings))


def _write(folder: Path, samples: Iterator[tuple[bytes, str | None]]) -> None:
    """Write images, a thousand per folder, and their captions if there are any."""
    lines = []
    for index, (content, caption) in enumerate(samples):
        ending = {b"\xff\xd8": "jpg", b"BM": "bmp"}.get(content[:2], "png")
        name = f"{index // 1000:03}/{index:06}.{ending}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        lines.append(json.dumps({"file": name, "captions": {} if caption is None else {"alt": [caption]}}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
