"""Runs that read text resume to the last bit, with the vocabulary they began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest

from aimcore import Data, Engine, Experiment, Study, Weights
from aimcore.contracts.errors import InvalidValue
from aimcore.engine import CheckpointMismatch, WeightsMismatch, initial_module, read_metrics, train
from aimcore.running.preflight import check_study
from aimcore_decoders import JointDecoder
from aimcore_objectives import Captioning
from aimcore_sources import BundledEmoji, Mixture
from aimcore_tokenizers import BPE
from aimcore_trunks import ViT

TEXTS = ["waving hand sign", "grinning face", "two men holding hands"] * 5


def captioning(tokenizer: BPE, num_workers: int = 0) -> Experiment:
    source = Mixture(
        sources=(BundledEmoji(styles=("google",)), BundledEmoji(styles=("twitter",))), weights=(0.75, 0.25)
    )
    weights = {"name": 3.0, "short": 1.0}
    return Experiment(
        name="captions",
        data=Data(
            train=source, validation=BundledEmoji(split="test"), batch_size=8, image_size=16, caption_weights=weights,
            num_workers=num_workers,
        ),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=8),
        objective=Captioning(
            decoder=JointDecoder(width=16, depth=1, num_heads=2), tokenizer=tokenizer, context_length=16
        ),
        num_steps=4,
        engine=Engine(precision="fp32"),
        checkpoint_every=2,
    )  # fmt: skip


@pytest.fixture
def tokenizer(tmp_path: Path) -> BPE:
    return BPE.train(TEXTS, tmp_path / "tokenizer.json", vocabulary_size=270)


def run(experiment: Experiment, folder: Path, *, resume: bool = False) -> list[dict[str, float]]:
    train(experiment, folder, resume=resume, progress=False).engine.close()
    return [line["losses"] for line in read_metrics(folder)]


def test_a_captioning_run_of_a_mixture_resumes_to_the_last_bit(tokenizer: BPE, tmp_path: Path) -> None:
    through = run(captioning(tokenizer), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    with_workers = captioning(tokenizer, num_workers=1)
    assert run(with_workers, tmp_path / "run", resume=True) == through
    assert len(set(map(str, through))) == 4


def test_a_checkpoint_of_another_vocabulary_is_refused(tokenizer: BPE, tmp_path: Path) -> None:
    run(captioning(tokenizer), tmp_path / "run")
    other = BPE.train(["sleeping accommodation"] * 9, tmp_path / "other.json", vocabulary_size=270)
    # Equal in size, so that every weight would fit.
    assert other.vocabulary_size == tokenizer.vocabulary_size == 270
    match = rf"vocabulary was bpe, 270 ids, {tokenizer.sha256[:16]}, now bpe, 270 ids, {other.sha256[:16]}"
    with pytest.raises(CheckpointMismatch, match=match):
        run(captioning(other), tmp_path / "run", resume=True)


def test_weights_of_another_vocabulary_are_refused(tokenizer: BPE, tmp_path: Path) -> None:
    run(captioning(tokenizer), tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step_00000004" / "model.safetensors"
    other = BPE.train([text[::-1] for text in TEXTS], tmp_path / "other.json", vocabulary_size=270)
    assert other.vocabulary_size == tokenizer.vocabulary_size
    begun = attrs.evolve(captioning(tokenizer), initial_weights=Weights(url=str(weights), part="all"))  # type: ignore[misc]
    changed = attrs.evolve(begun, objective=captioning(other).objective)  # type: ignore[misc]
    train(begun, tmp_path / "begun", progress=False).engine.close()
    with pytest.raises(
        WeightsMismatch, match=r"another vocabulary \('bpe, 270 ids, .*' there, 'bpe, 270 ids, .*' here\)"
    ):
        train(changed, tmp_path / "changed", progress=False)
    for part in ("decoder", "decoder.text_inputs"):
        the_part = attrs.evolve(changed, initial_weights=Weights(url=str(weights), part=part))  # type: ignore[misc]
        with pytest.raises(WeightsMismatch, match=rf"\(part '{part}'\).* of another vocabulary"):
            initial_module(the_part)
        initial_module(attrs.evolve(the_part, objective=captioning(tokenizer).objective))  # type: ignore[misc]
    # No weight in the blocks has a row for each id.
    blocks = Weights(url=str(weights), part="decoder.blocks")
    initial_module(attrs.evolve(changed, initial_weights=blocks))  # type: ignore[misc]
    the_trunk = attrs.evolve(changed, initial_weights=Weights(url=str(weights)))  # type: ignore[misc]
    train(the_trunk, tmp_path / "the-trunk", progress=False).engine.close()


def test_weights_of_another_vocabulary_are_reported_before_the_study_runs(tokenizer: BPE, tmp_path: Path) -> None:
    other = BPE.train([text[::-1] for text in TEXTS], tmp_path / "other.json", vocabulary_size=270)
    begins = Weights(experiment="captions", part="all")
    second = attrs.evolve(captioning(other), name="second", initial_weights=begins)  # type: ignore[misc]
    with pytest.raises(InvalidValue, match="another vocabulary"):
        check_study(Study(name="two", experiments=[captioning(tokenizer), second]), with_data=False)
