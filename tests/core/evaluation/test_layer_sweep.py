"""Probes of every block: the same features as probes of given blocks, chosen on held-out images."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from core.evaluation.toys import FittedNearest, Nearest, ToyTrunkModule, experiment
from loguru import logger
from torch import Tensor

from aimcore import Experiment, FittedProbe, InvalidValue, LabelledFeatures, component
from aimcore.contracts.probes import FeatureStream
from aimcore.evaluation import Outcome, ProbeScore, layer_sweep, probe_experiment
from aimcore.evaluation import stored_features as stored
from aimcore.evaluation.layer_sweep import LayerOutcome, Sweep, windows_of
from aimcore.running.measurements import probe_summaries


class DeepTrunk(ToyTrunkModule):
    """Block i of 8 puts out (i + 1) times the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 8


@component("recording")
class Recording(Nearest):
    """Nearest centre that records what it was trained on; it is wrong unless the features have one sum."""

    seen: ClassVar[list[tuple[float, int]]] = []
    best: float = 5.0
    """Mean multiple of the patches with which it classifies correctly."""

    def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
        fitted = super().fit(train, held_out, seed)
        assert isinstance(fitted, FittedNearest)
        # Class 1 is light: its centre, divided by that of the patches themselves, is the mean multiple.
        multiple = float(fitted.centers_CD[1, 0] / PATCH)
        self.seen.append((round(multiple, 4), len(train.labels)))
        return _Wrong(fitted) if abs(multiple - self.best) > 1e-3 else fitted


class _Wrong(FittedProbe):
    def __init__(self, fitted: FittedNearest) -> None:
        self.fitted, self.choice = fitted, fitted.choice

    def predict(self, features: Tensor) -> Tensor:
        return 1 - self.fitted.predict(features)


def _patch() -> float:
    """Mean first value of the light patches that probes train on, found by a probe of block 0."""
    found: list[float] = []

    @component("centre")
    class Centre(Nearest):
        layers: tuple[int, ...] = (0,)

        def fit(self, train: LabelledFeatures, held_out: LabelledFeatures, seed: int) -> FittedProbe:
            fitted = super().fit(train, held_out, seed)
            assert isinstance(fitted, FittedNearest)
            found.append(float(fitted.centers_CD[1, 0]))
            return fitted

    probe_experiment(experiment(probes=(Centre(),)), DeepTrunk(), None)
    return found[0]


PATCH = _patch()


def sweep(probe: Nearest, **how: Any) -> tuple[dict[str, ProbeScore], DeepTrunk]:
    trunk = DeepTrunk()
    probed: Experiment = attrs.evolve(experiment(probes=(probe,)), probe_every_layer=True)  # type: ignore[misc]
    return probe_experiment(probed, trunk, None, **how), trunk


def test_every_block_and_every_window_is_probed_and_the_best_is_chosen() -> None:
    Recording.seen.clear()
    scores, trunk = sweep(Recording())
    # 8 blocks, then windows of blocks 0-5, 1-6 and 2-7, whose mean multiples are 3.5, 4.5 and 5.5; first comes the
    # probe's own fit of blocks 1 and 2, and raw pixels.
    assert [multiple for multiple, _ in Recording.seen][2:] == [1, 2, 3, 4, 5, 6, 7, 8, 3.5, 4.5, 5.5]
    assert {number for _, number in Recording.seen} == {36}
    best, last, window = (scores[f"recording@{name}"] for name in ("best_layer", "last_six", "best_window"))
    assert (best.layers, best.top1) == ((4,), 1.0)
    assert (last.layers, last.top1) == ((2, 3, 4, 5, 6, 7), 0.0)
    # No window is right: of equally good ones the first is chosen.
    assert (window.layers, window.top1) == ((0, 1, 2, 3, 4, 5), 0.0)
    # The images are read once for the probe itself and once for all blocks: training and test images each.
    assert len(trunk.readings) == 4


def test_a_window_has_the_features_of_a_probe_that_reads_its_blocks() -> None:
    given = probe_experiment(experiment(probes=(Recording(best=4.5, layers=(1, 2, 3, 4, 5, 6)),)), DeepTrunk(), None)
    scores, _ = sweep(Recording(best=4.5))
    assert scores["recording@best_window"].layers == (1, 2, 3, 4, 5, 6)
    assert scores["recording@best_window"].top1 == given["recording"].top1 == 1.0
    assert torch.equal(scores["recording@best_window"].right_n, given["recording"].right_n)


def test_the_card_and_the_summary_have_the_candidates() -> None:
    scores, _ = sweep(Recording())
    card = json.loads(json.dumps(scores["recording@best_layer"].card))
    assert card["layers"] == [4]
    assert card["layers_chosen"].startswith("among 8, by accuracy on held-out train")
    assert "layers_chosen" not in scores["recording@last_six"].card
    summary = probe_summaries(scores)["recording@best_layer"]
    assert summary.candidates is not None
    assert [(one.layers, one.held_out_top1, one.top1) for one in summary.candidates][3:5] == [
        ((3,), 0, 0),
        ((4,), 1, 1),
    ]
    assert probe_summaries(scores)["recording@last_six"].candidates is None


def test_outputs_are_stored_in_the_cache_and_read_once(tmp_path: Path) -> None:
    first, _ = sweep(Recording(), cache_url=str(tmp_path))
    again, trunk = sweep(Recording(), cache_url=str(tmp_path))
    assert (again, len(trunk.readings)) == (first, 0)


def test_without_a_cache_the_temporary_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sweep(Recording())
    assert list(tmp_path.iterdir()) == []


def test_features_beyond_memory_are_streamed_with_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed: list[int] = []

    @component("recording")
    class Streamed(Recording):
        def fit_stream(self, train: FeatureStream, held_out: FeatureStream, seed: int) -> FittedProbe:
            streamed.append(len(train.labels))
            return super().fit_stream(train, held_out, seed)

    whole, _ = sweep(Recording())
    monkeypatch.setattr(stored, "IN_MEMORY_BYTES", 0)
    found, _ = sweep(Streamed())
    assert len(streamed) == 11
    assert [score.top1 for score in found.values()] == [score.top1 for score in whole.values()]


def test_few_images_are_read_at_once_where_blocks_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 blocks of 4 patches of 12 values: 1,536 bytes per image.
    monkeypatch.setattr(layer_sweep, "BATCH_BYTES", 10 * 1536)
    _, trunk = sweep(Recording())
    # 40 and 10 images in batches of 128, then of 10.
    assert len(trunk.readings) == 2 + 4 + 1


def test_probes_that_hold_nothing_out_cannot_choose_blocks() -> None:
    @component("greedy")
    class Greedy(Nearest):
        holds_out: ClassVar[bool] = False

    with pytest.raises(InvalidValue, match=r"probe_every_layer: needs a probe that holds images out.*\['greedy'\]"):
        sweep(Greedy())


@pytest.mark.parametrize(
    ("depth", "first", "number"), [(24, (0, 1, 2, 3, 4, 5), 19), (6, (0, 1, 2, 3, 4, 5), 1), (2, (0, 1), 1)]
)
def test_windows_are_six_blocks_or_all(depth: int, first: tuple[int, ...], number: int) -> None:
    assert (windows_of(depth)[0], len(windows_of(depth)), windows_of(depth)[-1][-1]) == (first, number, depth - 1)


def test_blocks_are_chosen_on_held_out_images_and_not_on_the_test_images() -> None:
    def probed(layers: tuple[int, ...], held_out: float, num_right: int) -> LayerOutcome:
        right = torch.arange(4) < num_right
        return LayerOutcome(layers, held_out, Outcome(right, {}, {"test": 4}, "images"))

    found = Sweep(
        blocks=(probed((0,), 0.5, 4), probed((1,), 0.7, 1), probed((2,), 0.7, 3)),
        windows=(probed((0, 1), 0.9, 0), probed((1, 2), 0.8, 4)),
    ).chosen()
    assert {name: one.layers for name, (one, _) in found.items()} == {
        "best_layer": (1,),
        "last_six": (1, 2),
        "best_window": (0, 1),
    }


def test_a_trunk_of_one_block_has_no_scores_by_block_and_the_log_says_so() -> None:
    lines: list[str] = []
    handler = logger.add(lines.append, format="{message}", level="WARNING")
    logger.enable("aimcore")
    try:
        one: Experiment = attrs.evolve(experiment(probes=(Nearest(layers=()),)), probe_every_layer=True)  # type: ignore[misc]
        shallow = ToyTrunkModule()
        shallow.depth = 1
        scores = probe_experiment(one, shallow, None)
    finally:
        logger.remove(handler)
        logger.disable("aimcore")
    assert list(scores) == ["nearest"]
    assert any("probe_every_layer adds no score" in line for line in lines)
