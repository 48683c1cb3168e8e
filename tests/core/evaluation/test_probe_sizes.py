"""Probing at further image sizes, and at native resolution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from core.engine.native_runs import Shapes
from core.evaluation.toys import Nearest

from aimcore import Data, Experiment, InvalidValue, NativeResolution
from aimcore.evaluation import ProbeScore, probe_experiment
from aimcore.evaluation.probe_images import open_probe_images
from aimcore.evaluation.probe_sizes import ProbeSize, probe_sizes
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_orderings import Spiral
from aimcore_probes import AttentiveProbe
from aimcore_trunks import ViT

ATTENTIVE = AttentiveProbe(epochs=2, batch_size=8, num_heads=2)
MASKED = NativeResolution(patches_per_step=256, log2_area=(3, 5), padding="masked")


def experiment(native: NativeResolution | None = None, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "name": "sizes",
        "data": Data(train=Shapes(), validation=Shapes(), batch_size=8, image_size=8, native=native),
        "trunk": ViT(width=16, depth=3, num_heads=2, patch_size=4),
        "objective": NextPatch(ordering=Spiral(), head=LinearHead(), prefix=None),
        "num_steps": 1,
        "probes": (Nearest(), ATTENTIVE),
    }
    return Experiment(**{**settings, **changes})


def scores(experiment: Experiment, **options: Any) -> dict[str, ProbeScore]:
    torch.manual_seed(0)
    trained, untrained = experiment.trunk.build(), experiment.trunk.build()
    return probe_experiment(experiment, trained, untrained, **options)


def test_every_probe_is_scored_at_every_size_under_a_name_of_its_own() -> None:
    found = scores(experiment(probe_image_sizes=(12, 16), probe_native_area=9))
    names = [f"{probe}{size}" for size in ("", "@12", "@16", "@native") for probe in ("nearest", "attentive")]
    assert list(found) == names
    assert all(found[name].untrained_top1 is not None for name in names[:2])
    assert {(found[name].untrained_top1, found[name].raw_pixels_top1) for name in names[2:]} == {(None, None)}


def test_each_card_names_its_size() -> None:
    found = scores(experiment(probe_image_sizes=(12,), probe_native_area=9, probes=(Nearest(),)))
    cards = {name: json.loads(json.dumps(score.card, allow_nan=False)) for name, score in found.items()}
    assert [card["size"] for card in cards.values()] == ["8 px", "12 px", "native, up to 9 patches"]
    assert "centre crop to 12 px" in cards["nearest@12"]["transform"]
    assert "resized (bicubic) to fit in 9 patches, not cropped" in cards["nearest@native"]["transform"]
    assert "own image size only" in cards["nearest@12"]["raw_pixels"]
    assert set(cards["nearest@12"]["choices"]) == {"trained"}


def test_a_further_size_scores_as_if_it_were_the_experiments_own() -> None:
    beside = scores(experiment(probe_image_sizes=(16,)))
    own = Data(train=Shapes(), validation=Shapes(), batch_size=8, image_size=16)
    alone = scores(experiment(data=own))
    for name in ("nearest", "attentive"):
        assert (beside[f"{name}@16"].top1, beside[f"{name}@16"].ci95) == (alone[name].top1, alone[name].ci95)


def test_sizes_do_not_share_cached_features(tmp_path: Path) -> None:
    run = experiment(probe_image_sizes=(12,), probe_native_area=9, probes=(Nearest(),))
    first = scores(run, cache_url=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3 + 2  # trained at three sizes, untrained, pixels
    assert scores(run, cache_url=str(tmp_path)) == first


@pytest.mark.parametrize("padding", ["image", "masked"])
def test_native_images_are_padded_as_in_training(padding: Any) -> None:
    native = NativeResolution(patches_per_step=256, log2_area=(3, 5), padding=padding)
    run = experiment(native, probe_native_area=11)
    images = open_probe_images(run)
    *_, size = probe_sizes(run)
    (batch,) = images.at(size).batches(images.test, 30)
    assert batch.images.patches_BNF.shape == (30, 11, 48)
    assert batch.images.is_padded == (padding == "masked")
    assert 0 < scores(run)["attentive@native"].top1 < 1


def test_a_probe_of_tokens_that_cannot_tell_padding_is_refused_where_it_is_masked() -> None:
    class Blind(AttentiveProbe):
        reads_padding = False

    with pytest.raises(InvalidValue, match="probe_native_area: probe 'attentive' reads tokens, and cannot distinguish"):
        experiment(MASKED, probe_native_area=11, probes=(Blind(),))
    assert experiment(MASKED, probes=(Blind(),)).probe_native_area is None


def test_the_own_size_comes_first_and_has_no_suffix() -> None:
    sizes = list(probe_sizes(experiment(probe_image_sizes=(12,), probe_native_area=9)))
    assert sizes == [ProbeSize(8), ProbeSize(12, suffix="@12"), ProbeSize(8, 9, "@native")]
    assert [size.is_own for size in sizes] == [True, False, False]
