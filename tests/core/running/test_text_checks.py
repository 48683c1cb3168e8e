"""Vocabularies and captions that do not fit are reported before training."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from aimcore import Data, Experiment, Study
from aimcore.contracts.errors import InvalidValue
from aimcore.running.preflight import check_study
from aimcore_decoders import JointDecoder
from aimcore_objectives import Captioning
from aimcore_sources import BundledEmoji, BundledFashionMNIST
from aimcore_tokenizers import BPE, Bytes


def captioning(make_experiment: Any, tokenizer: Any = None, context_length: int = 20, **data: Any) -> Study:
    decoder = JointDecoder(width=16, depth=1, num_heads=2)
    objective = Captioning(decoder=decoder, tokenizer=tokenizer or Bytes(), context_length=context_length)
    sources = {"train": BundledEmoji(), "validation": BundledEmoji(split="test"), **data}
    settings = Data(**{"batch_size": 4, "image_size": 28, **sources})
    made: Experiment = make_experiment("one", objective=objective, data=settings)
    return Study(name="table", experiments=[made])


def test_captioned_sources_and_a_vocabulary_pass(make_experiment: Any) -> None:
    check_study(captioning(make_experiment, caption_weights={"short": 1.0, "name": 0.0}))


def test_sources_without_captions_are_reported(make_experiment: Any) -> None:
    study = captioning(make_experiment, validation=BundledFashionMNIST())
    with pytest.raises(InvalidValue, match=r"one\.data\.validation: the objective reads text, .* have no caption: use"):
        check_study(study)


def test_captions_of_another_kind_are_none(make_experiment: Any) -> None:
    with pytest.raises(InvalidValue, match=r"one\.data\.train: .* have no caption of 'alt': use a captioned source"):
        check_study(captioning(make_experiment, caption_weights={"alt": 1.0}))


def test_a_vocabulary_that_changed_is_reported_even_in_a_dry_run(make_experiment: Any, tmp_path: Path) -> None:
    tokenizer = BPE.train(["a red shoe"], tmp_path / "tokenizer.json", vocabulary_size=270)
    other = attrs.evolve(tokenizer, sha256="0" * 64)
    with pytest.raises(InvalidValue, match=r"one\.objective\.tokenizer: .* but 0{64} is recorded"):
        check_study(captioning(make_experiment, other), with_data=False)


def test_a_context_without_room_is_reported(make_experiment: Any) -> None:
    with pytest.raises(InvalidValue, match=r"one\.objective\.tokenizer: Bytes: context_length: must be at least 2"):
        check_study(captioning(make_experiment, context_length=1))
