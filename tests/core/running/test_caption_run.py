"""Captions of a whole source: the written file does not depend on interruptions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import torch

from aimcore.contracts.batches import Sample
from aimcore.contracts.errors import InvalidValue
from aimcore.evaluation.caption_generation import Sampling
from aimcore.experiment import Data
from aimcore.running import caption_run
from aimcore.running.trained_model import TrainedModel
from aimcore.testing.caption_stand_in import StandInCaptioned, StandInSpeaker
from aimcore.testing.small_parts import StandInTrunk
from aimcore_sources import ImageFolder


class _Killed(BaseException):
    pass


@pytest.fixture
def model() -> TrainedModel:
    torch.manual_seed(0)
    module = StandInSpeaker().build(StandInTrunk().build())
    images = StandInCaptioned()
    data = Data(train=images, validation=images, image_size=8, batch_size=2)
    trunk = SimpleNamespace(patch_size=4)
    experiment = SimpleNamespace(objective=StandInSpeaker(), data=data, trunk=trunk)
    return cast(TrainedModel, SimpleNamespace(module=module, experiment=experiment))


def _write(model: TrainedModel, out: Path, seed: int = 1, batch_size: int = 2) -> bytes:
    settings = caption_run.Captioning(sampling=Sampling(seed=seed), num_captions=3, batch_size=batch_size)
    assert caption_run.caption_source(model, StandInCaptioned(), out, settings) == (12, 0)
    return out.read_bytes()


def test_a_killed_and_repeated_call_gives_equal_bytes(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_run, "SAMPLES_PER_PART", 5)
    whole = _write(model, tmp_path / "whole.jsonl")
    opened = type(StandInCaptioned().open())
    read, indices = opened.read, list[int]()

    def failing(source: Any, index: int) -> Sample:
        indices.append(index)
        if len(indices) == 8:
            raise _Killed
        return cast(Sample, read(source, index))

    monkeypatch.setattr(opened, "read", failing)
    with pytest.raises(_Killed):
        _write(model, tmp_path / "captions.jsonl")
    assert not (tmp_path / "captions.jsonl").exists()
    with pytest.raises(InvalidValue, match="begun with another"):
        _write(model, tmp_path / "captions.jsonl", seed=2)
    assert _write(model, tmp_path / "captions.jsonl") == whole
    assert indices[8:] == [5, 6, 7, 8, 9, 10, 11]  # the first part was kept
    assert whole.count(b"\n") == 12
    assert not list(tmp_path.glob(".captions*"))


def test_captions_do_not_depend_on_the_batch_size(model: TrainedModel, tmp_path: Path) -> None:
    alone = _write(model, tmp_path / "alone.jsonl", batch_size=1)
    assert alone == _write(model, tmp_path / "together.jsonl", batch_size=5)
    assert alone != _write(model, tmp_path / "another.jsonl", seed=2)


def test_two_samples_of_one_name_are_refused(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = type(StandInCaptioned().open())
    read = opened.read
    monkeypatch.setattr(opened, "read", lambda source, index: attrs.evolve(read(source, index), identifier="one"))
    with pytest.raises(caption_run.SameIdentifier, match="two samples are called one"):
        _write(model, tmp_path / "captions.jsonl")


def test_captions_that_would_change_how_a_folder_is_read_are_refused(model: TrainedModel, tmp_path: Path) -> None:
    source = ImageFolder(url=str(tmp_path))
    with pytest.raises(InvalidValue, match="choose a place outside"):
        caption_run.caption_source(model, source, tmp_path / "captions.jsonl", caption_run.Captioning())
