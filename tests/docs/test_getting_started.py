"""docs/getting-started.md: what can be copied from it works."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.page import blocks_of
from PIL import Image


def test_images_of_ones_own_are_packed_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("cat", "dog", "dog")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(folder / f"{number}.png")
    (block,) = [block for block in blocks_of("getting-started.md") if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, "getting-started.md", "exec"), {"__name__": "copied"})
    assert capsys.readouterr().out == "3 ('cat', 'dog')\n"
