"""Files that cannot be opened: each is refused with the reason and a hint, and nothing in it is run."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import fsspec
import msgpack
import other_layouts as other
import pytest
import torch
from golden_files import FOLDER, tensors
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import ViTConfig, ViTModel

from aimcore import AimcoreError, load_encoder
from aimcore.cli.encoder_arguments import require_place
from aimcore.contracts.errors import LocationError
from aimcore.contracts.uncertainty import UncertainEncoder
from aimcore.encoders import UnknownWeights
from aimcore.engine import WeightsNotFinite
from aimcore.io.preprocessor_files import CLIP
from aimcore.io.weight_files import open_weights
from aimcore.io.weight_siblings import UnreadableWeights

AIMV2 = FOLDER / "aim_v2.weights.safetensors"


def refusal(url: Path | str, **options: object) -> str:
    """What is said when a file is opened."""
    with pytest.raises(AimcoreError) as caught:
        load_encoder(str(url), **{"num_heads": 4, **options})  # type: ignore[arg-type]
    return str(caught.value)


def changed(path: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    state = tensors("aim_v2.weights")
    change(state)
    save_file(state, path)
    return path


class Attack:
    """What an attacker would put in a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_nothing_runs(tmp_path: Path, new_format: bool) -> None:
    state = {**tensors("aim_v2.weights"), "extra": Attack(tmp_path / "ran")}
    torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=new_format)
    said = refusal(tmp_path / "model.pth")
    assert "nothing" in said
    assert "run" in said
    assert "weights_only" not in said  # torch's hint would run the code
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "model.pth", weights_only=False)  # the attack would have worked
    assert (tmp_path / "ran").exists()


def test_the_code_in_a_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"model": Attack(tmp_path / "ran")}, tmp_path / "model.pth")
    assert f"it would run {os.mkdir.__module__}.mkdir when it is unpickled" in refusal(tmp_path / "model.pth")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_refused_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "model.bin").write_bytes(pickle.dumps({"a": Attack(tmp_path / "ran")}, protocol=protocol))
    assert f"it would run {os.mkdir.__module__}.mkdir when it is unpickled" in refusal(tmp_path / "model.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 5, 1000, 914_000, 914_239])
def test_a_safetensors_file_that_was_cut_short(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(AIMV2.read_bytes()[:kept])
    said = refusal(path)
    assert said.startswith(f"{path} cannot be read as weights: it is ")
    assert "cut short" in said or "empty" in said or "not a safetensors file" in said


@pytest.mark.parametrize("kept", [100, 100_000, 900_000])
def test_a_pickle_that_was_cut_short(tmp_path: Path, kept: int) -> None:
    torch.save(tensors("aim_v2.weights"), tmp_path / "whole.pth")
    path = tmp_path / "model.pth"
    path.write_bytes((tmp_path / "whole.pth").read_bytes()[:kept])
    assert refusal(path).endswith("it is damaged or cut short: the end of its zip file is missing. Fetch it again")


@pytest.mark.parametrize("kept", [100, 400_000])
def test_a_file_of_flax_that_was_cut_short(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(other.flax(tensors("aim_v2.weights"))[:kept])
    assert "it is not flax's msgpack, or is damaged or cut short, and must be fetched again" in refusal(path)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"params": {"a": msgpack.ExtType(1, msgpack.packb(([2], "float32", b"1234")))}}, "with 4 bytes"),
        ({"params": {"a": msgpack.ExtType(1, msgpack.packb(([2**50], "float32", b"")))}}, "with 0 bytes"),
        ({"params": {"a": msgpack.ExtType(1, msgpack.packb(([1], "object", b"12345678")))}}, "of type 'object'"),
        ({"params": {"a": msgpack.ExtType(7, b"")}}, "unknown extension type 7"),
        ({"params": {"a": "text"}}, "value of type str"),
        ({"params": {}}, "it holds no arrays"),
    ],
)
def test_a_file_of_flax_with_other_values(tmp_path: Path, tree: dict[str, object], said: str) -> None:
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb(tree))
    assert said in refusal(tmp_path / "model.msgpack")


def test_arrays_of_flax_in_pieces_and_in_bfloat16_are_read(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    pieces = {str(at): values.flatten()[2 * at : 2 * at + 2] for at in range(3)}
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": pieces}
    small = msgpack.ExtType(1, msgpack.packb(([2], "bfloat16", struct.pack("<HH", 0x3F80, 0xC000))))
    tree = {"params": {"large": chunked, "small": small}}
    (tmp_path / "model.msgpack").write_bytes(msgpack.packb(tree, default=other.flax_array))
    read = open_weights(str(tmp_path / "model.msgpack")).load()
    assert torch.equal(read["params.large"], values)
    assert torch.equal(read["params.small"], torch.tensor([1.0, -2.0], dtype=torch.bfloat16))


def test_a_header_of_any_length_is_not_mistaken_for_a_pickle(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    for length in (0x0280, 0x0380, 0x0480, 0x4B50):  # the first bytes are those of a pickle, or of a zip file: PK
        content = length.to_bytes(8, "little") + header.ljust(length) + struct.pack("<f", 2.5)
        (tmp_path / "model").write_bytes(content)  # torch trusts the suffix .safetensors
        assert open_weights(str(tmp_path / "model")).load()["a"].tolist() == [2.5]


def test_another_model_is_refused_with_the_nearest_layout(tmp_path: Path) -> None:
    save_file({"layer1.0.conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    assert "is in no known layout: it has the tensors 'fc.bias', 'layer1.0.conv1.weight'. 'aim" in refusal(
        tmp_path / "resnet.safetensors"
    )
    mae = {"pos_embed": torch.zeros(1, 5, 4), "cls_token": torch.zeros(1, 1, 4), "blocks.0.norm1.weight": torch.ones(4),
           "blocks.0.norm1.bias": torch.ones(4)}  # fmt: skip
    save_file(mae, tmp_path / "mae.safetensors")
    said = refusal(tmp_path / "mae.safetensors")
    assert "It is nearest to AIMv2, as in timm ('aimv2_timm'), which describes 2 of its 4 tensors" in said
    assert "not known in this layout: blocks.0.norm1.bias, cls_token" in said


def test_an_extra_tensor_a_missing_one_and_another_shape_are_named(tmp_path: Path) -> None:
    extra = changed(tmp_path / "extra.safetensors", lambda state: state.update({"trunk.gate": torch.zeros(3)}))
    assert "not known in this layout: trunk.gate" in refusal(extra)
    missing = changed(tmp_path / "missing.safetensors", lambda state: state.pop("trunk.blocks.2.mlp.fc3.weight"))
    assert "missing: trunk.blocks.2.mlp.fc3.weight" in refusal(missing)
    shaped = changed(
        tmp_path / "shaped.safetensors",
        lambda state: state.update({"trunk.blocks.1.mlp.fc2.weight": torch.ones(64, 9)}),
    )
    assert "of another shape: trunk.blocks.1.ffn.fc2.weight [64, 9] instead of [64, 160]" in refusal(shaped)
    flat = changed(
        tmp_path / "flat.safetensors",
        lambda state: state.update({"preprocessor.patchifier.proj.weight": torch.ones(64, 588)}),
    )
    assert "preprocessor.patchifier.proj.weight [64, 588] (it must be a convolution OIHW" in refusal(flat)


def test_a_huge_number_of_a_block_costs_nothing(tmp_path: Path) -> None:
    name = "trunk.blocks.99999999999.norm_1.weight"
    path = changed(tmp_path / "model.safetensors", lambda state: state.update({name: torch.ones(64)}))
    assert f"not known in this layout: {name}" in refusal(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    path = changed(
        tmp_path / "model.safetensors", lambda state: state["trunk.blocks.3.mlp.fc1.weight"][5, 7:9].fill_(value)
    )
    with pytest.raises(WeightsNotFinite, match=r"trunk\.blocks\.3\.ffn\.fc1\.weight \(2 of 10240 values\)"):
        load_encoder(str(path), num_heads=4)


def test_a_config_that_contradicts_the_weights(tmp_path: Path) -> None:
    shutil.copy(AIMV2, tmp_path / "model.safetensors")
    config = {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "image_size": 70, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = refusal(tmp_path)
    assert "trunk.depth is 4 by the weights, 5 by the config" in said
    assert "image_size is 56 by the weights, 70 by the config" in said
    assert "trunk.num_heads is 2 by the weights, 4 by the config" in refusal(tmp_path, num_heads=2)
    (tmp_path / "config.json").write_text("[1]")
    assert "config.json cannot be read as JSON: it is not an object" in refusal(tmp_path)


@pytest.mark.parametrize("heads", [None, 5, 0])
def test_a_number_of_heads_that_nothing_implies(heads: int | None) -> None:
    said = refusal(AIMV2, num_heads=heads)
    assert "num_heads" in said
    assert "64" in said


def test_what_to_open_instead_is_said(tmp_path: Path) -> None:
    shard = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"embeddings.cls_token": torch.zeros(1, 1, 4)}, shard)
    assert "It is one of several shards: give their folder, or the index" in refusal(shard)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UnknownWeights) as caught:
        load_encoder(str(tmp_path))
    assert caught.value.__notes__ == [f"if transformers wrote it, give it as transformers:{tmp_path}"]


def test_a_file_of_transformers_without_its_config_says_what_to_put_next_to_it(tmp_path: Path) -> None:
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(
        tmp_path
    )
    config = (tmp_path / "config.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(UnknownWeights) as caught:
        load_encoder(str(tmp_path / "model.safetensors"))
    (note,) = caught.value.__notes__
    assert note == f"if transformers wrote it, put its config.json next to it, and give it as transformers:{tmp_path}"
    config.rename(tmp_path / "config.json")
    assert load_encoder(note.rpartition(" ")[2], preprocessing="clip").width == 8
    remote = f"memory://{tmp_path.name}"
    for name in ("model.safetensors", "config.json"):
        with fsspec.open(f"{remote}/{name}", "wb") as file:
            file.write((tmp_path / name).read_bytes())
    with pytest.raises(UnknownWeights) as caught:
        load_encoder(remote)
    assert caught.value.__notes__ == [
        "if transformers wrote it, copy its folder to this machine, and give it as transformers:FOLDER"
    ]


@pytest.mark.parametrize(("config", "model"), [(None, "MODEL"), ({"architecture": "vit_tiny"}, "vit_tiny")])
def test_a_file_of_timm_is_opened_by_the_name_of_its_model(
    tmp_path: Path, config: dict[str, str] | None, model: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"cls_token": torch.zeros(1, 1, 4), "patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}, path)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnknownWeights) as caught:
        load_encoder(str(path))
    assert caught.value.__notes__ == [
        f"if timm wrote it, give it as timm:{model}@{path}, with the model's name in timm"
    ]


def test_a_head_without_its_trunk(tmp_path: Path) -> None:
    head = {name: value for name, value in tensors("aim_v1.weights").items() if name.startswith("head.")}
    save_file(head, tmp_path / "head.safetensors")
    assert "it is an attention probe of AIM without its trunk. Open both" in refusal(tmp_path / "head.safetensors")
    whole = FOLDER / "aim_v1.weights.safetensors"
    assert "both have 'head.bn" in refusal(whole, head=str(tmp_path / "head.safetensors"))
    assert "it is the prediction head of AIM's training code" in refusal(FOLDER / "mlp_head.weights.safetensors")
    assert "probe_layers must be blocks from 0 to 3" in refusal(whole, probe_layers=(2, 7))


def _sharded(folder: Path) -> dict[str, str]:
    state = tensors("aim_v2.weights")
    places = {name: f"model-0000{1 + at % 3}-of-00003.safetensors" for at, name in enumerate(sorted(state))}
    for shard in sorted(set(places.values())):
        save_file({name: state[name] for name in state if places[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_shards_are_joined_and_a_missing_or_foreign_one_is_named(tmp_path: Path) -> None:
    places = _sharded(tmp_path)
    encoder = load_encoder(str(tmp_path), num_heads=4)
    pixels = tensors("aim_v2.io")["pixels"]
    assert torch.equal(encoder.features(pixels), load_encoder(str(AIMV2), num_heads=4).features(pixels))
    assert len(encoder.source.files) == 3
    second = tmp_path / "model-00002-of-00003.safetensors"
    kept = second.read_bytes()
    second.unlink()
    assert "1 of its 3 shards are missing: model-00002-of-00003.safetensors" in refusal(tmp_path)
    second.write_bytes((tmp_path / "model-00001-of-00003.safetensors").read_bytes())
    assert "its shard model-00002-of-00003.safetensors lacks" in refusal(tmp_path)
    second.write_bytes(kept)
    save_file({**load_file(second), "more": torch.zeros(1)}, second)
    assert "its shard model-00002-of-00003.safetensors also has more" in refusal(tmp_path)
    outside = dict.fromkeys(places, "../secret.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": outside}))
    assert "which is not the name of a file beside it" in refusal(tmp_path)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "nothing.safetensors")
    assert "it is a folder, and it has none of model.safetensors" in refusal(tmp_path)
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert "It is a pointer of Git LFS, not the file itself" in refusal(tmp_path / "pointer.safetensors")
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert "It is a JSON file: give the folder" in refusal(tmp_path / "config.json")
    assert "is refused: the protocol 'reference' is not allowed" in refusal("reference://x")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "a value of type list instead of a dictionary of tensors" in refusal(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    assert "it holds no tensors" in refusal(tmp_path / "none.pth")


def test_another_hash_is_refused() -> None:
    with pytest.raises(UnknownWeights, match=f"has sha256 26b9814f.*, not {'0' * 64}"):
        load_encoder(str(AIMV2), num_heads=4, sha256="0" * 64)


def test_a_library_of_flax_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.msgpack").write_bytes(other.flax(tensors("aim_v2_native.weights")))
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    with pytest.raises(UnreadableWeights, match=r"pip install 'aimcore\[flax\]'"):
        load_encoder(str(tmp_path / "model.msgpack"), num_heads=4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON: JSONDecodeError"),
        ("[]", "cannot be read as JSON: it is not an object"),
        ('{"image_mean": [0.5, 0.5], "image_std": [1, 1]}', r"image_mean \[0.5, 0.5\], image_std \[1, 1\] cannot be"),
        ('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0, 0, 0]}', r"image_std \[0, 0, 0\] cannot be applied"),
        ('{"image_mean": [0.5, 0.5, 0.5]}', r"cannot be applied .* or choose with preprocessing= \(--preprocessing\)"),
        ('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": "large"}', "size 'large' cannot be applied"),
    ],
)
def test_a_preprocessing_that_cannot_be_used_is_refused_unless_another_is_chosen(
    tmp_path: Path, content: str, said: str
) -> None:
    shutil.copy(AIMV2, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(UnreadableWeights, match=r"preprocessor_config\.json cannot be read as JSON: ") as caught:
        load_encoder(tmp_path, num_heads=4)
    assert re.search(said, str(caught.value))
    assert load_encoder(tmp_path, num_heads=4, preprocessing="clip").known_preprocessing.preprocessing == CLIP


def test_a_file_without_a_normalisation_is_said_to_have_none(tmp_path: Path) -> None:
    shutil.copy(AIMV2, tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false, "image_mean": null}')
    with pytest.warns(UncertainEncoder, match="a preprocessor_config.json without a normalisation is next to"):
        load_encoder(tmp_path, num_heads=4)


def test_a_layout_that_is_given_and_does_not_fit_is_refused_with_the_one_that_does() -> None:
    said = refusal(AIMV2, layout="aimv2_timm")
    assert "does not fit the layout that was given, AIMv2, as in timm ('aimv2_timm'), which describes 0 of its" in said
    assert said.endswith("It fits 'aimv2_authors': give that layout, or none")


def test_shards_without_their_index_are_not_said_to_be_models(tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copy(AIMV2, tmp_path / f"model-{number:05}-of-00002.safetensors")
    said = refusal(tmp_path)
    assert "it has shards without their index: model-00001-of-00002.safetensors, model-00002-of-" in said
    assert said.endswith("Fetch the file that ends with .index.json too")


def test_the_folder_of_a_study_is_refused_with_its_runs(tmp_path: Path) -> None:
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}")
    assert refusal(tmp_path).endswith("it has the runs first, second: give the folder of one of them")


def test_a_page_of_a_web_site_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("<!DOCTYPE html><html></html>")
    assert refusal(tmp_path / "model.safetensors").endswith("It is a web page: fetch the file itself")


def test_the_code_in_a_file_of_torch_before_zip_files_is_named(tmp_path: Path) -> None:
    attack = {"model": Attack(tmp_path / "ran")}
    torch.save(attack, tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    assert f"it would run {os.mkdir.__module__}.mkdir when it is unpickled" in refusal(tmp_path / "model.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("first", [b"\x81", b"\xde", b"\x93"])
def test_other_content_in_a_safetensors_file_is_not_said_to_be_of_flax(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(first * 100)
    said = refusal(tmp_path / "model.safetensors")
    assert "it is not a safetensors file" in said
    assert "cut short" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("aim_v2.weights.safetensor", "(did you mean 'aim_v2.weights.safetensors' or "),
        ("hf:/apple/model", "; a URL has two slashes there: 'hf://apple/model'"),
        ("https:/host/a.pth", "; a URL has two slashes there: 'https://host/a.pth'"),
    ],
)
def test_a_slip_in_a_name_is_pointed_out(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(LocationError, match=re.escape(said)):
        require_place(given)
