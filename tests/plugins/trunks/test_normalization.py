"""Two normalisations are published for released AIMv2 weights: their config decides, or a warning names both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from core.engine.test_real_modules import next_patch
from golden_files import FOLDER
from loguru import logger

from aimcore import Data, Experiment, Study, Weights
from aimcore.engine.weights_advice import weights_advice
from aimcore.running.preflight import check_study
from aimcore_sources import BundledEmoji
from aimcore_trunks import ViT

# As the hub's model files have it (CLIP's statistics, nothing cropped), and as the authors' readme and code have it.
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711), "eval_crop": 1.0}
HUB = {
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224},
    "image_mean": list(CLIP["mean"]), "image_std": list(CLIP["std"]),  # type: ignore[call-overload]
}  # fmt: skip
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder with AIMv2 weights in the authors' layout."""
    shutil.copy(FOLDER / "aim_v2.weights.safetensors", tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def beginning(url: str, **data: Any) -> Experiment:
    trunk = ViT(
        width=64, depth=4, num_heads=4, norm="rms_norm", norm_eps=1e-5, ffn="swiglu", ffn_width=160,
        positions="learned", grid=(4, 4),
    )  # fmt: skip
    emoji = BundledEmoji(split="test")
    made = Data(train=emoji, validation=emoji, batch_size=8, image_size=56, **(IMAGENET | data))
    return next_patch(0, "fp32", data=made, trunk=trunk, initial_weights=Weights(url=url))


def put(url: str, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    Path(url).with_name("preprocessor_config.json").write_text(text, encoding="utf-8")


def test_without_a_config_both_candidates_are_named(weights: str) -> None:
    (warning,) = weights_advice(beginning(weights))
    assert "has no preprocessor_config.json, so" in warning
    assert "CLIP's (data.mean=[0.48145466, 0.4578275, 0.40821073], " in warning
    assert "data.eval_crop=1)" in warning
    imagenet = "data.mean=[0.485, 0.456, 0.406], data.std=[0.229, 0.224, 0.225], data.eval_crop=0.875"
    assert f"ImageNet's ({imagenet})" in warning
    assert warning.endswith(f"This run uses {imagenet}")


def test_the_config_decides(weights: str) -> None:
    put(weights, HUB)
    assert weights_advice(beginning(weights, **CLIP)) == []
    (warning,) = weights_advice(beginning(weights))
    assert warning.startswith("the preprocessor_config.json in the folder of these weights has data.mean=[0.48145466, ")
    put(weights, {f"image_{name}": values for name, values in IMAGENET.items()})
    assert weights_advice(beginning(weights, eval_crop=1.0)) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", '{"image_mean": 1, "image_std": [1]}', {**HUB, "size": {"shortest_edge": 0}}, "[" * 100_000],
)
def test_a_config_without_a_normalisation_counts_as_missing(weights: str, content: object) -> None:
    put(weights, content)
    (warning,) = weights_advice(beginning(weights))
    assert "has a preprocessor_config.json without a normalisation" in warning


def test_aim_has_one_normalisation_and_no_warning() -> None:
    aim = ViT(width=64, depth=4, num_heads=4)
    data = Data(train=BundledEmoji(split="test"), validation=BundledEmoji(split="test"), batch_size=8, image_size=56)
    data = attrs.evolve(data, **IMAGENET)  # type: ignore[misc]
    url = str(FOLDER / "aim_v1.weights.safetensors")
    assert weights_advice(next_patch(0, "fp32", data=data, trunk=aim, initial_weights=Weights(url=url))) == []
    assert weights_advice(next_patch(0, "fp32", data=data, trunk=aim, initial_weights=Weights(url="nowhere"))) == []


def test_the_statistics_of_the_source_are_warned_about_where_weights_come_from_a_file() -> None:
    aim, emoji = ViT(width=64, depth=4, num_heads=4), BundledEmoji(split="test")
    data = Data(train=emoji, validation=emoji, batch_size=8, image_size=56)
    url = str(FOLDER / "aim_v1.weights.safetensors")
    (warning,) = weights_advice(next_patch(0, "fp32", data=data, trunk=aim, initial_weights=Weights(url=url)))
    assert warning.startswith("pixels are normalised by the statistics of source 'bundled_emoji' (data.mean=[")
    assert weights_advice(next_patch(0, "fp32", data=data, trunk=aim)) == []


def test_only_weights_for_the_trunk_are_warned_about() -> None:
    aim, emoji = ViT(width=64, depth=4, num_heads=4), BundledEmoji(split="test")
    data = Data(train=emoji, validation=emoji, batch_size=8, image_size=56)
    url = str(FOLDER / "aim_v1.weights.safetensors")

    def num_warnings(*parts: str) -> int:
        files = tuple(Weights(url=url, part=part) for part in parts)
        return len(weights_advice(next_patch(0, "fp32", data=data, trunk=aim, initial_weights=files)))

    assert num_warnings("head") == 0
    assert num_warnings("head", "trunk") == num_warnings("trunk.blocks", "head") == num_warnings("all") == 1


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    found: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)
    logger.disable("aimcore")


def test_a_study_warns_once_before_it_runs(weights: str, warnings: list[str]) -> None:
    one = beginning(weights)
    study = Study(name="two", experiments=[one, attrs.evolve(one, name="other")])  # type: ignore[type-var]
    check_study(study, with_data=False)
    (warning,) = warnings
    assert warning.startswith("initial weights: two normalisations are published for AIMv2's released encoders")
