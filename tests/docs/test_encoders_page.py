"""docs/encoders.md: its study and its commands work as they are written."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import zarr
from docs.page import blocks_of
from golden_files import FOLDER
from PIL import Image

from aimcore import Weights, load_encoder
from aimcore.run import command


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FOLDER / "aim_v2.weights.safetensors", "aimv2.safetensors")
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Path("pictures", name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (60, 50 + number), colour).save(f"pictures/{name}/{number}.png")


def test_the_study_has_plain_trunks_and_the_file() -> None:
    (block,) = [block for block in blocks_of("encoders.md") if block.title == "study.py"]
    names: dict = {}
    exec(compile(block.code, "study.py", "exec"), names)
    frozen, adapted, continued, larger = names["study"]("smoke").experiments
    assert frozen.initial_weights == continued.initial_weights == Weights(url="aimv2.safetensors")
    assert frozen.trunk.grid == adapted.trunk.trunk.grid == (4, 4)
    assert (larger.trunk.grid, larger.initial_weights.resize) == ((8, 8), True)


def test_the_commands_do_what_the_page_says(capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder("aimv2.safetensors", num_heads=4).save("aimv2.enc")
    lines = [
        line for block in blocks_of("encoders.md") if block.language == "console" for line in block.code.split("\n")
    ]
    for line in filter(None, lines):
        assert command(shlex.split(line)[1:]) == 0, line
    assert zarr.open_group("features.zarr", mode="r")["features"].shape == (4, 64)
    assert zarr.open_group("tokens.zarr", mode="r")["features"].dtype == "float16"
    found = [line for line in capfd.readouterr().out.splitlines() if ".png" in line]
    assert found[0].split()[:2] == ["1.000", "red/1.png"]
    assert Path("found.html").is_file()
    assert Path("look.html").is_file()
