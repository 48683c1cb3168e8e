"""``aimcore caption`` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
from PIL import Image
from trained_runs import captioning_experiment, write_run

from aimcore import Images, NativeResolution
from aimcore.run import command
from aimcore_decoders import JointDecoder
from aimcore_objectives import Captioning, Contrastive
from aimcore_objectives.captioner import CaptionerModule
from aimcore_trunks import ViT


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(tmp_path: Path) -> str:
    write_run(tmp_path / "run", captioning_experiment(), step=2)
    return str(tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        Image.new("RGB", (40, 32), colour).save(folder / f"{name}.png")
    return folder


def written(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert command(["caption", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_table_names_files_and_captions(run: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["caption", run, str(pictures)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "tiny (captioning, 2 steps)"
    assert all(any(name in line for line in lines) for name in ("blue.png", "red.png"))
    assert max(map(len, lines)) <= 80


def test_captions_do_not_depend_on_what_else_is_captioned(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ("--num", "2", "--temperature", "2")
    together = written(capsys, run, str(pictures), *drawn)
    alone = written(capsys, run, str(pictures / "red.png"), *drawn)
    assert alone == together[1:]
    assert len({caption["text"] for caption in alone[0]["captions"]}) == 2


def test_another_seed_draws_other_captions_and_none_draws_none(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(pictures / "red.png")
    first, second = (written(capsys, run, file, "--seed", seed) for seed in ("1", "2"))
    assert first != second
    assert written(capsys, run, file) == written(capsys, run, file)
    (one,) = written(capsys, run, file, "--max-tokens", "2")
    assert len(one["captions"][0]["text"]) <= 2


def test_captions_begin_with_the_prompt_and_one_that_fills_the_context_is_refused(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = written(capsys, run, str(pictures / "red.png"), "--prompt", "ab", "--max-tokens", "1")
    assert one["captions"][0]["text"].startswith("ab")
    assert command(["caption", run, str(pictures), "--prompt", "x" * 500]) == 2
    assert "nothing could be written after it" in " ".join(capsys.readouterr().err.split())


def test_a_run_at_native_resolution_sees_the_whole_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Images] = []
    build = CaptionerModule.caption_start
    monkeypatch.setattr(
        CaptionerModule, "caption_start", lambda self, batch: (seen.append(batch.images), build(self, batch))[1]
    )
    squares = captioning_experiment(trunk=ViT(width=16, depth=1, num_heads=2, patch_size=16, positions="sincos"))
    native = NativeResolution(patches_per_step=64, images_multiple_of=1, log2_area=(2.0, 6.0))
    own_shape = attrs.evolve(squares, data=attrs.evolve(squares.data, native=native))
    write_run(tmp_path / "run", own_shape, step=2)
    Image.new("RGB", (160, 40), (255, 0, 0)).save(tmp_path / "wide.png")
    run, file = str(tmp_path / "run"), str(tmp_path / "wide.png")
    written(capsys, run, file)
    written(capsys, run, file, "--area", "4")
    # The median of 2^2 to 2^6 is 16 patches: two rows of eight for a picture four times as wide as high.
    assert [(images.grids[0].rows, images.grids[0].columns) for images in seen] == [(2, 8), (1, 4)]


def test_a_run_on_squares_cannot_take_other_shapes(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = ViT(width=16, depth=1, num_heads=2, patch_size=16, positions="learned", grid=(2, 2))
    write_run(tmp_path / "run", captioning_experiment(trunk=trunk), step=2)
    assert command(["caption", str(tmp_path / "run"), str(pictures), "--area", "4"]) == 2
    assert "reads only squares of 32 px, so --area cannot be used" in " ".join(capsys.readouterr().err.split())


def test_unreadable_pictures_are_named_and_skipped(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "broken.png").write_text("no picture")
    assert command(["caption", run, str(pictures)]) == 1
    output = capsys.readouterr()
    assert "skipped cannot read" in output.err
    assert "broken.png: it is damaged, or none of AVIF" in output.err
    assert "blue.png" in output.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png"], "no readable image in nowhere.png"),
        (["x.png", "--num", "0"], "num: must be at least 1, got 0"),
        (["x.png", "--num", "1000000000"], "num: must be at most 10000, got 1000000000"),
        (["x.png", "--area", "1000000000"], "area: must be at most 65536, got 1000000000"),
        (["x.png", "--temperature", "1e-300"], "temperature: must lie between 1e-06 and 1000000.0, got 1e-300"),
        (["x.png", "--temperature", "inf"], "temperature: must be a number, got inf: it is not finite"),
        (["x.png", "--seed", "99999999999999999999"], "seed: must be a whole number, got 99999999999999999999: it has"),
        (["x.png", "--temperature", "0"], "temperature: must be positive"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["caption", run, *words]) == 2
    assert message in capsys.readouterr().err


def test_an_objective_without_captions_is_reported_with_those_that_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, captioning_experiment(Contrastive.examples()[0]), step=2)
    assert command(["caption", str(tmp_path), "x.png"]) == 2
    said = capsys.readouterr().err
    assert "objective 'contrastive', which writes no captions; those that do: cappa, captioning, multimodal" in said


def test_a_model_that_never_learnt_to_stop_is_reported(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = Captioning(decoder=JointDecoder(width=16, depth=1, num_heads=2), context_length=8)
    write_run(tmp_path / "run", captioning_experiment(endless), step=2)
    assert command(["caption", str(tmp_path / "run"), str(pictures)]) == 0
    assert "never learnt" in capsys.readouterr().err
