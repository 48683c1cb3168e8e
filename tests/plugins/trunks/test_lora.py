"""LoRA: what is trained, what a run begins with, and that the merged trunk is the adapted one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import attrs
import pytest
import torch
from loguru import logger
from safetensors.torch import load_file, save_file
from trained_runs import write_run

from aimcore import (
    Batch,
    Data,
    Engine,
    Experiment,
    InvalidValue,
    PatchGrid,
    Reading,
    TrunkModule,
    Weights,
    load_encoder,
)
from aimcore.contracts.images import images_of
from aimcore.engine import TrainingEngine, WeightsMismatch, build_module, initial_module
from aimcore.engine.cost import cost_of
from aimcore.run import command
from aimcore.testing import Case, findings_of, parametrize_with_checks
from aimcore.testing.checks import Check
from aimcore_heads import LinearHead
from aimcore_objectives import Classification, MaskedPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import LORA_WEIGHTS, LoRA, RandomFeatures, ViT, aim

VIT = ViT(width=16, depth=2, num_heads=2, patch_size=4)
LORA = LoRA(trunk=VIT, rank=2)
IMAGES = images_of(torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0)), 4)


@parametrize_with_checks([LORA])
def test_it_passes_the_checks_of_trunks(component: object, check: Check) -> None:
    check(component)


def built(trunk: LoRA = LORA, *, moved: bool = False) -> TrunkModule:
    """The module; ``moved`` draws B, as if it had been trained."""
    torch.manual_seed(0)
    module = trunk.build()
    for name, weight in module.named_parameters():
        if moved and "lora_B" in name:
            torch.nn.init.normal_(weight)
    return module.eval()


def tokens(module: TrunkModule) -> torch.Tensor:
    return module(IMAGES, Reading()).tokens_BND


def experiment(trunk: ViT | LoRA = LORA, **changes: object) -> Experiment:
    source = BundledFashionMNIST()
    settings = {
        "name": "tuned",
        "data": Data(train=source, validation=source, batch_size=4, image_size=8),
        "trunk": trunk,
        "objective": Classification(num_classes=10, pooling="attentive", num_pool_heads=2, mixup=0.8),
        "num_steps": 2,
        "engine": Engine(precision="fp32"),
    }
    return Experiment(**settings | changes)


def batch() -> Batch:
    images = images_of(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 4)
    return Batch(images, torch.arange(4), labels_B=torch.arange(4))


def test_it_begins_as_the_plain_trunk() -> None:
    torch.manual_seed(0)
    plain = VIT.build().eval()
    torch.testing.assert_close(tokens(built()), tokens(plain), rtol=0, atol=0)


def test_query_value_and_output_are_adapted_and_the_rest_is_frozen() -> None:
    trained = {name for name, weight in built().named_parameters() if weight.requires_grad}
    layers = [f"blocks.{block}.attention.{layer}" for block in (0, 1) for layer in ("query", "value", "out")]
    assert trained == {f"{layer}.lora_{part}.default.weight" for layer in layers for part in "AB"}


def test_a_layer_adds_the_product_times_alpha_over_rank() -> None:
    module = built(attrs.evolve(LORA, alpha=6.0), moved=True)
    layer, x = module.blocks[0].attention.query, torch.rand(5, 16)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(x), x @ layer.base_layer.weight.T + 3 * (x @ a.T) @ b.T)


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_merged_weights_agree_with_the_adapted_trunk(alpha: float | None) -> None:
    trunk = attrs.evolve(LORA, alpha=alpha)
    module = built(trunk, moved=True)
    plain, state = trunk.export(module)
    merged = plain.build().eval()
    merged.load_state_dict(state)
    assert plain == VIT
    torch.testing.assert_close(tokens(merged), tokens(module), rtol=0, atol=1e-6)
    assert (tokens(merged) - tokens(built(trunk))).abs().max() > 0.1


def test_the_share_of_the_7b_is_the_papers_tenth_of_a_percent() -> None:
    data = attrs.evolve(experiment().data, image_size=14)
    objective = Classification(num_classes=1000, pooling="attentive")
    cost = cost_of(experiment(LoRA(trunk=aim("7B")), data=data, objective=objective))
    assert cost.trained_trunk_parameters == 32 * 3 * 2 * 8 * 4096  # blocks, layers, A and B, rank, width
    assert cost.trunk_parameters == 6_445_404_160 + cost.trained_trunk_parameters
    assert round(100 * cost.trained_trunk_parameters / 6_445_404_160, 1) == 0.1
    assert cost.trained_parameters == cost.trained_trunk_parameters + 4096 * (1 + 2 * 4096 + 1000)


def test_training_moves_nothing_but_the_update_and_the_head() -> None:
    tuned = experiment()
    before = build_module(tuned).state_dict()
    with TrainingEngine(tuned) as engine:
        for _ in range(2):
            engine.step([batch()])
        after = engine.module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {name for name in after if "lora_" in name or not name.startswith("trunk.")}


@pytest.mark.parametrize("layout", ["trunk", "run"])
def test_a_run_begins_with_the_weights_of_a_plain_trunk(tmp_path: Path, layout: str) -> None:
    pretrained = build_module(experiment(VIT, seed=5))
    path = tmp_path / "model.safetensors"
    save_file((pretrained.trunk if layout == "trunk" else pretrained).state_dict(), path)
    weights = Weights(url=str(path), fresh=LORA_WEIGHTS)
    module = initial_module(experiment(initial_weights=weights)).eval()
    torch.testing.assert_close(tokens(module.trunk), tokens(pretrained.trunk.eval()), rtol=0, atol=0)
    assert any("lora_A" in name for name in module.state_dict())
    with pytest.raises(WeightsMismatch, match=r"missing: .*lora_A"):
        initial_module(experiment(initial_weights=attrs.evolve(weights, fresh=())))


def test_an_exported_run_is_a_plain_trunk_that_others_begin_with(tmp_path: Path, capsys) -> None:
    tuned = experiment()
    run, file = tmp_path / "tuned", tmp_path / "trunk.safetensors"
    torch.manual_seed(1)
    module = write_run(run, tuned, step=2)
    try:
        assert command(["export", str(run), "--out", str(file)]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == "vit"
        assert load_file(file).keys() == VIT.build().state_dict().keys()
        other = initial_module(experiment(VIT, initial_weights=Weights(url=str(file)))).eval()
        torch.testing.assert_close(tokens(other.trunk), tokens(module.trunk.eval()), rtol=0, atol=1e-6)
        assert command(["export", str(run), "--out", str(file)]) == 2
        assert "exists already: remove it, or name another file" in capsys.readouterr().err
    finally:
        logger.remove()
        logger.disable("aimcore")


def test_the_encoder_of_a_run_is_merged(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = write_run(tmp_path / "tuned", experiment(), step=2)
    encoder = load_encoder(str(tmp_path / "tuned"))
    assert encoder.trunk == VIT
    torch.testing.assert_close(tokens(encoder.module), tokens(module.trunk.eval()), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="does not hold these weights, into which an update was merged"):
        encoder.to_recipe()


def test_a_plain_run_exports_its_trunk_as_it_is(tmp_path: Path) -> None:
    module = write_run(tmp_path / "tuned", experiment(VIT), step=2)
    plain, state = VIT.export(module.trunk)
    assert plain == VIT
    assert all(torch.equal(value, module.trunk.state_dict()[name]) for name, value in state.items())


def test_no_prediction_reads_its_own_answer_through_the_update() -> None:
    trunk = attrs.evolve(LORA, trunk=attrs.evolve(VIT, mask_token=True))
    assert findings_of(Case("masked", trunk, MaskedPatch(head=LinearHead()), PatchGrid(3, 4))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank: must be at least 1"),
        ({"targets": ()}, "must name at least one linear layer"),
        ({"trunk": LORA}, "is adapted already"),
        ({"alpha": 0.0}, "alpha"),
    ],
)
def test_settings_that_adapt_nothing_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        LoRA(**{"trunk": VIT} | changes)


def test_layers_that_the_trunk_lacks_are_named_with_those_that_it_has() -> None:
    with pytest.raises(
        InvalidValue, match=r"has no linear layer 'qkv': it has fc1, fc2, key, linear, out, query, value"
    ):
        attrs.evolve(LORA, targets=("query", "qkv")).build()


def test_a_trunk_without_linear_layers_cannot_be_adapted() -> None:
    with pytest.raises(InvalidValue, match=r"no linear layer 'query': it has none, so that nothing can"):
        LoRA(trunk=RandomFeatures(width=16, patch_size=4)).build()


def test_a_rank_above_that_of_a_layer_is_refused() -> None:
    assert attrs.evolve(LORA, rank=16).build()
    with pytest.raises(InvalidValue, match=r"rank: must be at most 16, .* of layer '.*', got 17"):
        attrs.evolve(LORA, rank=17).build()


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib.import_module("aimcore_trunks.lora"), "import_module", missing)
    with pytest.raises(importlib.import_module("aimcore_trunks.lora").MissingPeft, match=r"aimcore\[lora\]"):
        LORA.build()
