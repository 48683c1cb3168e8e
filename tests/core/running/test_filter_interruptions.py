"""Interrupted filters: the same call continues with what is known, and makes the same choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filter_pools import captioned_folder, encoded, noise
from small_encoders import TOWERS, run_of

from aimcore import Encoder, OpenSource, load_encoder
from aimcore.report import filter_page
from aimcore.run import command
from aimcore.running import filter_parts, filter_reading
from aimcore.running.filter_parts import PartStore
from aimcore.running.filter_steps import Filtering
from aimcore.running.source_filtering import Filtered, filter_source
from aimcore_sources import CaptionedFolder, ImageFolder
from aimcore_sources.captioned_folder import OpenCaptionedFolder
from aimcore_sources.image_folder import OpenImageFolder

NUM_SAMPLES, NUM_EVALUATION = 16, 6
STEPS = Filtering(
    against=("eval",), embeddings_by="towers", similarity=1.0, deduplicate=True, scores_by="towers", keep=0.5
)


class Killed(BaseException):
    """Ends a call where it is."""


class Reads:
    """Numbers of the samples that were read of a kind of sources."""

    def __init__(self, kind: type[OpenSource], monkeypatch: pytest.MonkeyPatch) -> None:
        self.indices: list[int] = []
        self.last: int | None = None
        """Number of reads after which the next one ends the call."""
        whole = kind.read_with_file

        def counted(source: Any, index: int) -> Any:
            if len(self.indices) == self.last:
                self.last = None
                raise Killed
            self.indices.append(index)
            return whole(source, index)

        monkeypatch.setattr(kind, "read_with_file", counted)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool with broken samples, evaluation images (5, 13), and copies (9 of 2, 10 of 3, 15 of 1). Parts have 4."""
    seeds = [1, 2, 3, 4, 5, 51, 7, 8, 0, 3, 4, 12, 13, 52, 15, 2]
    files = {f"{number:02}.png": encoded(noise(seed)) if seed else b"broken" for number, seed in enumerate(seeds)}
    captioned_folder(tmp_path / "pool", files)
    (tmp_path / "eval").mkdir()
    for seed in range(50, 50 + NUM_EVALUATION):
        (tmp_path / "eval" / f"{seed}.png").write_bytes(encoded(noise(seed)))
    for module in (filter_reading, filter_parts):
        monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(filter_parts, "CHUNKS_PER_PART", 2)
    run_of(tmp_path / "towers", objective=TOWERS)
    return tmp_path


@pytest.fixture
def towers(folder: Path) -> Encoder:
    return load_encoder(folder / "towers" / "run")


def chosen(folder: Path, towers: Encoder, store: str) -> Filtered:
    (folder / store).mkdir(exist_ok=True)
    return filter_source(
        CaptionedFolder(url=str(folder / "pool")).open(), STEPS,
        evaluation_sets={"eval": ImageFolder(url=str(folder / "eval")).open()}, embeddings_by=towers,
        scores_by=towers, store=PartStore(folder / store),
    )  # fmt: skip


def parts(folder: Path, store: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / store).iterdir()}


@pytest.mark.parametrize("last", range(NUM_SAMPLES))
def test_a_call_that_was_killed_at_any_sample_continues_with_the_finished_parts_and_chooses_the_same(
    folder: Path, towers: Encoder, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chosen(folder, towers, "whole")
    assert whole.counts() == {"broken": 1, "evaluation": 2, "duplicate": 3, "low score": 5}
    pool, evaluation = Reads(OpenCaptionedFolder, monkeypatch), Reads(OpenImageFolder, monkeypatch)
    pool.last = last
    with pytest.raises(Killed):
        chosen(folder, towers, "interrupted")
    num_before, num_evaluation = len(pool.indices), len(evaluation.indices)
    again = chosen(folder, towers, "interrupted")
    assert parts(folder, "interrupted") == parts(folder, "whole")
    assert (again.removed, again.kept_n.tolist()) == (whole.removed, whole.kept_n.tolist())
    assert (again.scores, again.similarities) == (whole.scores, whole.similarities)
    # A chunk is read ahead, and the part with the last one may not be stored.
    first = pool.indices[num_before]
    assert pool.indices[num_before:] == list(range(first, NUM_SAMPLES))
    assert first in (last // 4 * 4, last // 4 * 4 - 4)
    assert num_evaluation == len(evaluation.indices) == NUM_EVALUATION


def test_evaluation_images_are_not_embedded_again(
    folder: Path, towers: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chosen(folder, towers, "whole")
    evaluation = Reads(OpenImageFolder, monkeypatch)
    evaluation.last = NUM_EVALUATION - 1
    with pytest.raises(Killed):
        chosen(folder, towers, "interrupted")
    again = chosen(folder, towers, "interrupted")
    assert parts(folder, "interrupted") == parts(folder, "whole")
    assert again.removed == whole.removed
    assert evaluation.indices == [0, 1, 2, 3, 4, 4, 5]


def test_a_damaged_part_is_computed_again(folder: Path, towers: Encoder) -> None:
    whole, before = chosen(folder, towers, "whole"), parts(folder, "whole")
    for name, content in before.items():
        (folder / "whole" / name).write_bytes(content[: len(content) // 2])
        assert chosen(folder, towers, "whole").removed == whole.removed
        assert parts(folder, "whole") == before


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, whose page has no pictures: each would be read once more."""
    monkeypatch.setattr(filter_page, "thumbnails", lambda *_: {})

    def filtered(*options: str, out: str = "out-*.tar") -> int:
        steps = ["--against", str(folder / "eval"), "--deduplicate", "--scores-by", str(folder / "towers" / "run")]
        return command(["data", "filter", str(folder / "pool"), str(folder / out), *steps, *options])

    return filtered


def test_the_command_continues_and_reads_every_image_once_to_choose_and_once_to_write(
    folder: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(out="whole-*.tar") == 0
    whole = json.loads((folder / "whole.tar.filter.json").read_text())
    pool = Reads(OpenCaptionedFolder, monkeypatch)
    pool.last = 11
    with pytest.raises(Killed):
        run()
    assert (folder / ".out.tar.filtering").is_dir()
    assert not (folder / "out.tar.filter.json").exists()
    assert run() == 0
    record = json.loads((folder / "out.tar.filter.json").read_text())
    assert record == {**whole, "destination": record["destination"]}
    assert (folder / "out-00000.tar").read_bytes() == (folder / "whole-00000.tar").read_bytes()
    assert not list(folder.glob(".out*"))
    kept = sorted(set(range(NUM_SAMPLES)) - {one["index"] for one in record["removed"]})
    pool.indices.clear()
    assert run(out="third-*.tar") == 0
    assert sorted(pool.indices) == sorted([0, *range(NUM_SAMPLES), *kept])


def test_another_share_continues_and_other_steps_are_refused(
    folder: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = Reads(OpenCaptionedFolder, monkeypatch)
    pool.last = 11
    with pytest.raises(Killed):
        run()
    assert run("--hash-distance", "2") == 2
    assert "an unfinished choice with other steps: repeat the command" in " ".join(capsys.readouterr().err.split())
    description = folder / ".out.tar.filtering" / "description.json"
    before = description.read_text()
    description.write_text(before[:-9])
    assert run() == 2
    assert "an unfinished choice with other source, steps" in " ".join(capsys.readouterr().err.split())
    description.write_text(before)
    pool.indices.clear()
    assert run("--keep", "0.9", "--dry-run") == 0
    assert pool.indices[:2] == [0, 8]


def test_scores_are_kept_if_nothing_is_left(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--min-score", "1") == 2
    pool = Reads(OpenCaptionedFolder, monkeypatch)
    assert run("--min-score", "-1", "--dry-run") == 0
    assert pool.indices == [0]  # the search for captions
