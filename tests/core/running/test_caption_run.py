"""Captions of a whole source: the written file does not depend on interruptions."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from aimcore.contracts.batches import Sample
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.sources import OpenSource
from aimcore.data.rendering import renderer_of
from aimcore.evaluation.caption_generation import Sampling
from aimcore.experiment import Data
from aimcore.running import caption_run
from aimcore.running.trained_model import TrainedModel
from aimcore.testing.caption_stand_in import StandInCaptioned, StandInSpeaker
from aimcore.testing.small_parts import StandInTrunk


class _Killed(BaseException):
    pass


@pytest.fixture
def model() -> Iterator[TrainedModel]:
    torch.manual_seed(0)
    module = StandInSpeaker().build(StandInTrunk().build())
    yield cast(TrainedModel, SimpleNamespace(module=module, experiment=SimpleNamespace(objective=StandInSpeaker())))


def _write(model: TrainedModel, out: Path, source: OpenSource | None = None, seed: int = 1) -> bytes:
    images = StandInCaptioned()
    renderer = renderer_of(Data(train=images, validation=images, image_size=8, batch_size=2), 4)
    settings = caption_run.Captioning(sampling=Sampling(seed=seed), num_samples=3, batch_size=2)
    caption_run.caption_source(model, source or images.open(), renderer, out, settings, {"seed": seed})
    return out.read_bytes()


def test_a_killed_and_repeated_call_gives_equal_bytes(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_run, "SAMPLES_PER_PART", 5)
    whole = _write(model, tmp_path / "whole.jsonl")
    source = cast(Any, StandInCaptioned().open())
    read = source.read
    indices: list[int] = []

    def failing(index: int) -> Sample:
        indices.append(index)
        if len(indices) == 8:
            raise _Killed
        return cast(Sample, read(index))

    source.read = failing
    with pytest.raises(_Killed):
        _write(model, tmp_path / "captions.jsonl", source)
    assert not (tmp_path / "captions.jsonl").exists()
    with pytest.raises(InvalidValue, match="begun with another"):
        _write(model, tmp_path / "captions.jsonl", seed=2)
    assert _write(model, tmp_path / "captions.jsonl", source) == whole
    assert indices[8:] == [5, 6, 7, 8, 9, 10, 11]  # the first part was kept
    assert whole.count(b"\n") == 12
