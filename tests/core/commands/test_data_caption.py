"""``aimcore data caption`` as a person meets it, and training with what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from PIL import Image
from trained_runs import captioning_experiment, write_run

from aimcore import run_experiment
from aimcore.recipe.writing import plain
from aimcore.run import command
from aimcore_sources import CaptionedFolder, WithCaptions


@pytest.fixture
def run(tmp_path: Path) -> str:
    write_run(tmp_path / "run", captioning_experiment(), step=2)
    return str(tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(8):
        Image.new("RGB", (40, 32), (30 * number, 0, 90)).save(folder / f"{number}.png")
    lines = [json.dumps({"file": f"{number}.png", "captions": {"alt": ["a plain"]}}) for number in range(8)]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def test_a_source_is_captioned_and_a_run_trains_on_both_kinds(
    run: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "captions.jsonl"
    words = ["data", "caption", str(pictures), str(out), "--run", run, "--num", "2", "--max-tokens", "4"]
    assert command(words) == 0
    said, printed = capsys.readouterr().out.splitlines()
    assert said.endswith("captions of 8 images")
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [len(one["captions"]) for one in written] == [2] * 8
    assert command(words) == 2  # nothing is overwritten

    source = WithCaptions(source=CaptionedFolder(url=str(pictures)), captions=str(out))
    assert json.loads(printed) == plain(source)
    assert source.open().read(3).captions == {"alt": ("a plain",), "synthetic": tuple(written[3]["captions"])}
    experiment = captioning_experiment()
    data = attrs.evolve(
        experiment.data, train=source, validation=source, caption_weights={"synthetic": 0.75, "alt": 0.25}
    )
    result = run_experiment(attrs.evolve(experiment, name="both", data=data), tmp_path / "both")
    assert result is not None


def test_unreadable_images_are_left_out_and_a_run_without_captions_is_refused(
    run: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "5.png").write_bytes(b"no image")
    out = tmp_path / "captions.jsonl"
    assert command(["data", "caption", str(pictures), str(out), "--run", run, "--max-tokens", "4"]) == 1
    assert "captions of 7 images; 1 images could not be read" in capsys.readouterr().out
    assert command(["data", "caption", str(pictures), str(out), "--run", str(tmp_path / "nowhere")]) == 2
