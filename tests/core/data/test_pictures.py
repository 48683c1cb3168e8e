"""Pictures from anywhere: found, decoded, rendered as validation renders its own."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from aimcore.contracts.errors import UnreadableSample
from aimcore.data import evaluation_batches
from aimcore.data.pictures import find_pictures, read_picture
from aimcore.data.rendering import renderer_of
from aimcore.experiment import Data
from aimcore_sources import BundledEmoji


def picture(path: Path, *, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> str:
    Image.new(mode, size, 255).save(path)
    return str(path)


def test_a_folder_stands_for_its_pictures(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        picture(tmp_path / name) if name != "notes.txt" else (tmp_path / name).write_text("")
    found = list(find_pictures([str(tmp_path), "nowhere.png"]))
    assert found == [f"{tmp_path}/a.JPG", f"{tmp_path}/b.png", "nowhere.png"]


def test_a_picture_is_rgb_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("L", (6, 4), 255).save(path, exif=exif)
    content, pixels_CHW = read_picture(str(path))
    assert content == path.read_bytes()
    assert pixels_CHW.shape == (3, 6, 4)


def test_a_picture_may_lie_behind_a_url() -> None:
    with fsspec.open("memory://pictures/one.png", "wb") as file:
        Image.new("RGB", (2, 2), (9, 0, 0)).save(file, "PNG")
    assert list(find_pictures(["memory://pictures"])) == ["memory://pictures/one.png"]
    assert int(read_picture("memory://pictures/one.png")[1][0, 0, 0]) == 9


def test_grey_of_16_bits_keeps_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 0x4000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(str(tmp_path / "deep.png"))[1].unique().tolist() == [0x40]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(UnreadableSample, match=r"broken.png: it is damaged, or none of AVIF, BMP"):
        read_picture(str(tmp_path / "broken.png"))
    for place in (str(tmp_path / "nothing.png"), "nosuchprotocol://x.png"):
        with pytest.raises(UnreadableSample, match="cannot read"):
            read_picture(place)


def test_pictures_are_rendered_as_in_validation() -> None:
    source = BundledEmoji(split="test", styles=("google",))
    data = Data(train=source, validation=source, batch_size=2, image_size=24)
    opened = source.open()
    (batch,) = evaluation_batches(data, opened, patch_size=8, batch_size=2, indices=[0, 5])
    renderer = renderer_of(data, patch_size=8)
    images = renderer.together([renderer.for_evaluation(opened.read(index)) for index in (0, 5)]).images
    assert torch.equal(images.patches_BNF, batch.images.patches_BNF)
    assert images.grids == batch.images.grids
