"""Random features, and encoders of other libraries as trunks: what they return is what their library returns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torchvision.models import resnet18
from transformers import AutoConfig, AutoModel

from aimcore import Data, Experiment, Images, InvalidValue, PatchGrid, Reading, Trunk, Weights
from aimcore.contracts.errors import AimcoreError
from aimcore.engine import begun_module
from aimcore.testing.checks import trunks
from aimcore_objectives import NoTraining
from aimcore_sources import BundledEmoji
from aimcore_trunks import RandomFeatures, TorchvisionTrunk
from aimcore_trunks.efficientnet_lite import from_efficientnet_lite
from aimcore_trunks.timm_models import TimmTrunk
from aimcore_trunks.transformers_models import TransformersTrunk, transformers_trunk
from aimcore_trunks.vit_layouts import layout_of
from aimcore_trunks.weight_files import NotTensors, convert_weights, main

TINY: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}


def images(rows: int, columns: int, patch_size: int, number: int = 2) -> Images:
    pixels_BCHW = torch.randn(
        number, 3, rows * patch_size, columns * patch_size, generator=torch.Generator().manual_seed(0)
    )
    patches_BNF = pixels_BCHW.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    patches_BNF = patches_BNF.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    found = Images(patches_BNF=patches_BNF, grids=(PatchGrid(rows, columns),) * number, patch_size=patch_size)
    assert torch.equal(found.pixels_BCHW, pixels_BCHW)
    return found


def experiment(trunk: Trunk, url: str | None, side: int = 32) -> Experiment:
    source = BundledEmoji(split="test")
    return Experiment(
        name="frozen",
        data=Data(train=source, validation=source, batch_size=1, image_size=side),
        trunk=trunk,
        objective=NoTraining(),
        num_steps=0,
        initial_weights=None if url is None else Weights(url=url),
    )


@torch.no_grad()
def begun(trunk: Trunk, url: str, read: Images) -> Any:
    return begun_module(experiment(trunk, url)).trunk.eval()(read, Reading(layers=(0,)))


def test_random_features_are_a_projection_of_each_patch_with_its_position() -> None:
    module = RandomFeatures(width=4, patch_size=1).build()
    module.weight_FD.copy_(torch.tensor([[1.0, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0]]))
    module.bias_D.copy_(torch.tensor([0.0, 0, -9, 0]))
    patches_BNF = torch.tensor([[[2.0, 3.0, 5.0], [1.0, 0.0, 7.0]]])
    found = module(Images(patches_BNF=patches_BNF, grids=(PatchGrid(1, 2),), patch_size=1), Reading()).tokens_BND
    # Positions of width 4: sine and cosine of the column, then of the row.
    expected = [[2.0, 3 + 1, 0, 0 + 1], [1 + math.sin(1), 0 + math.cos(1), 0, 0 + 1]]
    torch.testing.assert_close(found, torch.tensor([expected]))
    assert not list(module.parameters())


def test_the_projection_of_the_cosine_has_phases_of_the_whole_circle() -> None:
    torch.manual_seed(0)
    module = RandomFeatures(width=4000, patch_size=2, nonlinearity="cos").build()
    assert 0 <= float(module.bias_D.min()) < 0.01
    assert 6.27 < float(module.bias_D.max()) < 2 * math.pi
    assert float(module.weight_FD.var()) == pytest.approx(1 / 12, rel=0.03)


def test_a_vit_of_timm_gives_its_patches_class_token_and_blocks() -> None:
    trunk = TimmTrunk(model="vit_tiny_patch16_224", patch_size=16, num_extra=1, options=TINY)
    module, read = trunk.build().eval(), images(2, 2, 16)
    with torch.no_grad():
        found = module(read, Reading(layers=(1, 0)))
        whole_BTD = module.model.forward_features(read.pixels_BCHW)
        last, blocks = module.model.forward_intermediates(read.pixels_BCHW, indices=[0, 1], output_fmt="NLC")
    torch.testing.assert_close(found.tokens_BND, whole_BTD[:, 1:])
    torch.testing.assert_close(found.extra_BRD, last[:, :1])
    torch.testing.assert_close(found.layers, (blocks[1], blocks[0]))


def test_a_convolutional_network_of_timm_has_a_token_per_stride() -> None:
    module = TimmTrunk(model="tf_efficientnet_lite0", patch_size=32).build().eval()
    with torch.no_grad():
        tokens_BND = module(images(1, 2, 32), Reading()).tokens_BND
    assert tokens_BND.shape == (2, 2, 1280)
    assert module.depth == 1


def test_settings_that_do_not_fit_the_model_are_refused_before_anything_runs() -> None:
    with pytest.raises(InvalidValue, match=r"timm has no architecture 'vit_tiny_patch16_22' \(did you mean"):
        TimmTrunk(model="vit_tiny_patch16_22")
    with pytest.raises(InvalidValue, match="none is downloaded"):
        TimmTrunk(model="hf-hub:timm/vit")
    with pytest.raises(InvalidValue, match=r"trunk: it cannot read images of 4 x 4 patches of 8 px: .*set patch_size"):
        experiment(TimmTrunk(model="vit_tiny_patch16_224", patch_size=8, num_extra=1, options=TINY), None)
    with pytest.raises(InvalidValue, match="Input height"):
        experiment(TimmTrunk(model="vit_tiny_patch16_224", num_extra=1, options=TINY), None, side=64)
    with pytest.raises(InvalidValue, match=r"timm cannot build .*no_such_option"):
        TimmTrunk(model="vit_tiny_patch16_224", options={"no_such_option": 1}).build()


def vit_state(model: str, **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """A model of timm with random weights, and its state."""
    torch.manual_seed(1)
    made: Any = timm.create_model(model, pretrained=False, num_classes=0, global_pool="", **TINY, **options).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made, made.state_dict()


def vit_file(layout: str, state: dict[str, Tensor]) -> dict[str, Any]:
    """The content of a file of the authors."""
    extra = torch.ones(3)
    if layout == "MAE":
        return {"model": {**state, "mask_token": extra, "decoder_pred.weight": extra, "decoder_blocks.0.a": extra}}
    if layout == "DINO":
        student = {f"module.backbone.{name}": value + 1 for name, value in state.items()}
        teacher = {f"backbone.{name}": value for name, value in state.items()}
        return {"student": student, "teacher": {**teacher, "head.mlp.0.weight": extra}, "epoch": 3}
    if layout == "iBOT":
        return {"state_dict": {**state, "masked_embed": extra, "head.last_layer.weight": extra}}
    return {"model": {**state, "mask_token": extra, "lm_head.weight": extra, "lm_head.bias": extra}}


@pytest.mark.parametrize("layout", ["MAE", "DINO", "iBOT", "BEiT"])
def test_files_of_vision_transformers_give_the_outputs_of_timms_models(layout: str, tmp_path: Path) -> None:
    name = "beit_base_patch16_224" if layout == "BEiT" else "vit_tiny_patch16_224"
    model, state = vit_state(name)
    content = vit_file(layout, state)
    torch.save(content, tmp_path / "file.pth")
    names = convert_weights(tmp_path / "file.pth", tmp_path / "file.safetensors")
    assert layout_of(dict.fromkeys(names, torch.ones(1))) == layout
    read = images(2, 2, 16)
    trunk = TimmTrunk(model=name, num_extra=1, options=TINY)
    found = begun(trunk, str(tmp_path / "file.safetensors"), read)
    with torch.no_grad():
        expected_BTD = model.forward_features(read.pixels_BCHW)
    torch.testing.assert_close(found.tokens_BND, expected_BTD[:, 1:])
    torch.testing.assert_close(found.extra_BRD, expected_BTD[:, :1])


def test_shared_relative_positions_of_beit_are_repeated_for_each_block(tmp_path: Path) -> None:
    shared, state = vit_state("beit_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    torch.save({"model": state}, tmp_path / "file.pth")
    convert_weights(tmp_path / "file.pth", tmp_path / "file.safetensors")
    read = images(2, 2, 16)
    trunk = TimmTrunk(model="beit_base_patch16_224", num_extra=1, options=TINY)
    found = begun(trunk, str(tmp_path / "file.safetensors"), read)
    with torch.no_grad():
        expected_BTD = shared.forward_features(read.pixels_BCHW)
    torch.testing.assert_close(found.tokens_BND, expected_BTD[:, 1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_dict": {"something.weight": torch.ones(1)}}, r"unexpected: model.something.weight"),
        ({"other": {"weight": torch.ones(1)}}, r"beside it entries of an unknown kind: other.weight"),
        (
            {"state_dict": {"blocks.0.norm1.weight": torch.ones(5)}},
            r"of another shape: .*norm1.weight \[5\] instead of",
        ),
    ],
)
def test_every_entry_of_a_file_is_used_or_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, state = vit_state("vit_tiny_patch16_224")
    torch.save({**changes, "state_dict": {**state, **changes.get("state_dict", {})}}, tmp_path / "file.pth")
    convert_weights(tmp_path / "file.pth", tmp_path / "file.safetensors")
    trunk = TimmTrunk(model="vit_tiny_patch16_224", num_extra=1, options=TINY)
    with pytest.raises(AimcoreError, match=message):
        begun(trunk, str(tmp_path / "file.safetensors"), images(2, 2, 16))


def test_the_names_of_efficientnet_lite_become_those_of_timm() -> None:
    own = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).state_dict()
    state, index = {}, -1
    names = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    for name, value in own.items():
        part, *rest = name.split(".")
        if part != "blocks":
            state[f"_{part.replace('bn1', 'bn0').replace('bn2', 'bn1')}.{'.'.join(rest)}"] = value
            continue
        stage, _, inner, kind = rest
        is_first = stage == "0"  # the only block that does not expand its input
        index += inner == ("conv_dw" if is_first else "conv_pw")
        known = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"} if is_first else names
        inner = known.get(inner) or f"_bn{int(inner[-1]) - (not is_first)}"
        state[f"_blocks.{index}.{inner}.{kind}"] = value
    assert "_blocks.15._project_conv.weight" in state
    assert "_blocks.0._bn2.bias" in state
    converted = from_efficientnet_lite({**state, "_fc.weight": torch.ones(1)})
    assert {name: id(value) for name, value in converted.items()} == {name: id(value) for name, value in own.items()}
    with pytest.raises(AimcoreError, match=r"unknown entry '_se_reduce.weight'"):
        from_efficientnet_lite({**state, "_se_reduce.weight": torch.ones(1)})


class Planted:
    def __reduce__(self) -> Any:
        return print, ("code of the file ran",)


def test_a_pickled_file_is_read_for_its_tensors_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"a": torch.ones(1)}, "args": Planted()}, tmp_path / "file.pth")
    assert main([str(tmp_path / "file.pth"), str(tmp_path / "out.safetensors")]) == 2
    output = capsys.readouterr()
    assert "holds more than tensors and plain values" in output.err
    assert "code of the file ran" not in output.out
    assert not (tmp_path / "out.safetensors").exists()
    torch.save({"epoch": 3}, tmp_path / "file.pth")
    with pytest.raises(NotTensors, match="holds no tensors"):
        convert_weights(tmp_path / "file.pth", tmp_path / "out.safetensors")
    with pytest.raises(NotTensors, match=r"has sha256 .*, not 00: it was changed, or is another file"):
        convert_weights(tmp_path / "file.pth", tmp_path / "out.safetensors", sha256="00")


def test_a_network_of_torchvision_gives_the_map_of_its_part() -> None:
    trunk = TorchvisionTrunk(model="resnet18", output="layer4", blocks=("layer4.0", "layer4"))
    module, read, reference = trunk.build().eval(), images(1, 2, 32), resnet18().eval()
    module.load_state_dict(trunk.convert(reference.state_dict()))  # the classifier is left out
    with torch.no_grad():
        found = module(read, Reading(layers=(1, 0)))
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(read.pixels_BCHW))))
        first = reference.layer4[0](reference.layer3(reference.layer2(reference.layer1(x))))
        map_BDHW = reference.layer4[1](first)
    assert module.width == 512
    torch.testing.assert_close(found.tokens_BND[:, 1], map_BDHW[:, :, 0, 1])
    torch.testing.assert_close(found.layers[1][:, 0], first[:, :, 0, 0])


@pytest.mark.parametrize("check", [trunks.check_features_have_the_declared_shapes, trunks.check_a_dry_run_can_count_it])
def test_a_network_of_torchvision_passes_checks_of_trunks(check: Any) -> None:
    check(TorchvisionTrunk(model="shufflenet_v2_x0_5", output="conv5"))


def test_batch_norms_keep_their_statistics_so_that_images_do_not_mix() -> None:
    module = TorchvisionTrunk(model="shufflenet_v2_x0_5", output="conv5").build().train()
    read = images(1, 1, 32)
    other = Images(
        patches_BNF=read.patches_BNF * torch.tensor([1.0, 3.0])[:, None, None], grids=read.grids, patch_size=32
    )
    before, after = (module(one, Reading()).tokens_BND for one in (read, other))
    torch.testing.assert_close(before[0], after[0])
    assert module.training
    assert int(module.state_dict()["model.conv1.1.num_batches_tracked"]) == 0


def test_the_width_of_a_part_is_that_of_its_output() -> None:
    # The last layer of squeezenet's features concatenates two branches of 256 channels.
    assert TorchvisionTrunk(model="squeezenet1_1", output="features", patch_size=16).build().width == 512
    with pytest.raises(InvalidValue, match="squeezenet1_1 has no part 'layer4'; there are features, classifier"):
        TorchvisionTrunk(model="squeezenet1_1", output="layer4").build()
    with pytest.raises(InvalidValue, match=r"torchvision has no model 'resnet19' \(did you mean"):
        TorchvisionTrunk(model="resnet19", output="layer4")


def test_an_encoder_of_transformers_is_read_from_its_configuration(tmp_path: Path) -> None:
    config = json.loads(TransformersTrunk.examples()[0].config)
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 12}))
    trunk = transformers_trunk(tmp_path)
    assert (trunk.patch_size, trunk.num_extra) == (4, 1)
    module, read = trunk.build().eval(), images(3, 3, 4)
    reference: Any = AutoModel.from_config(AutoConfig.for_model(**config | {"image_size": 12})).eval()
    # As in a file of a classifier: its head and pooler are left out.
    state = {f"vit.{name}": value for name, value in reference.state_dict().items()}
    module.load_state_dict(trunk.convert({**state, "classifier.weight": torch.ones(1)}))
    with torch.no_grad():
        found = module(read, Reading(layers=(0,)))
        expected = reference(read.pixels_BCHW, output_hidden_states=True)
    torch.testing.assert_close(found.tokens_BND, expected.last_hidden_state[:, 1:])
    torch.testing.assert_close(found.layers[0], expected.hidden_states[1][:, 1:])
    with pytest.raises(InvalidValue, match="config: is not the JSON of a configuration of transformers: it has no"):
        TransformersTrunk(config="{}")
