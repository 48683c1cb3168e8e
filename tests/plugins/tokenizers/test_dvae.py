"""The discrete VAE: structure, codes, DALL-E's pickled files of which only tensors are read, training and export."""

from __future__ import annotations

import io
import json
import math
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import torch
from core.engine.toys import experiment, whole_batch
from image_tokenizers import SMALL, write_dvae, write_kmeans
from torch import Tensor, nn

from aimcore import Batch, PatchGrid, PixelStatistics, built_target, built_tokenizer
from aimcore.contracts.assembly import assembled
from aimcore.contracts.images import images_of, unpatchify
from aimcore.engine import TrainingEngine
from aimcore.run import command
from aimcore.testing import Case
from aimcore.testing.causality import findings_of
from aimcore.testing.conformance import checks_for
from aimcore.testing.fixtures import GRID
from aimcore.testing.small_parts import StandInTrunk
from aimcore_heads import LinearHead
from aimcore_objectives import DiscreteVAE, NextPatch
from aimcore_objectives.dvae import NoPowerOfTwo, NotExportable
from aimcore_targets import Codes
from aimcore_tokenizers import DVAE
from aimcore_tokenizers.dvae import DVAEModule
from aimcore_tokenizers.dvae_networks import Decoder, DVAEShape, Encoder, Resampling, with_margin, without_margin
from aimcore_tokenizers.files import TokenizerFileError
from aimcore_tokenizers.fitted import WrongPatches
from aimcore_trunks import DVAEEncoder


def published(shape: DVAEShape, kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of DALL-E's published encoder or decoder, written out from its description."""
    top, found = shape.groups, {}

    def layer(name: str, out_width: int, width: int, kernel: int) -> None:
        found[f"{name}.w"], found[f"{name}.b"] = (out_width, width, kernel, kernel), (out_width,)

    kernels = (3, 3, 3, 1) if kind == "encoder" else (1, 3, 3, 3)
    width = shape.width if kind == "encoder" else shape.decoder_input
    layer("blocks.input", width, *((shape.num_channels, 7) if kind == "encoder" else (shape.num_codes, 1)))
    for group in range(1, top + 1):
        out_width = shape.width * 2 ** (group - 1 if kind == "encoder" else top - group)
        for block in range(1, shape.blocks_per_group + 1):
            name, hidden = f"blocks.group_{group}.block_{block}", out_width // 4
            if width != out_width:
                layer(f"{name}.id_path", out_width, width, 1)
            widths = (width, hidden, hidden, hidden, out_width)
            for number, kernel in enumerate(kernels, start=1):
                layer(f"{name}.res_path.conv_{number}", widths[number], widths[number - 1], kernel)
            width = out_width
    layer("blocks.output.conv", shape.num_codes if kind == "encoder" else 2 * shape.num_channels, width, 1)
    return found


def test_at_full_size_the_networks_have_dall_es_shapes_and_number_of_parameters() -> None:
    with torch.device("meta"):
        module = DVAEModule(DVAEShape())
        encoder = sum(math.prod(shape) for shape in published(DVAEShape(), "encoder").values())
        decoder = sum(math.prod(shape) for shape in published(DVAEShape(), "decoder").values())
        own = sum(weight.numel() for part in (module.encoder, module.logits) for weight in part.parameters())
        assert own == encoder == 53_786_240
        assert sum(weight.numel() for weight in module.decoder.parameters()) == decoder == 43_829_766
        codes_BN = module.encode(torch.empty(2, 3, 128, 128), PatchGrid(16, 16))
        assert codes_BN.shape == (2, 256)
        assert module.decode(codes_BN, PatchGrid(16, 16)).shape == (2, 3, 128, 128)


def dall_e_encoder(state: dict[str, Tensor], pixels_BCHW: Tensor, shape: DVAEShape, kind: str) -> Tensor:
    """DALL-E's network as plain functions of its published parameters."""

    def layer(name: str, maps_BDHW: Tensor) -> Tensor:
        weight = state[f"{name}.w"]
        return nn.functional.conv2d(maps_BDHW, weight, state[f"{name}.b"], padding=(weight.shape[-1] - 1) // 2)

    maps_BDHW = layer("blocks.input", pixels_BCHW)
    for group in range(1, shape.groups + 1):
        for block in range(1, shape.blocks_per_group + 1):
            name = f"blocks.group_{group}.block_{block}"
            residual_BDHW = maps_BDHW
            for number in range(1, 5):
                residual_BDHW = layer(f"{name}.res_path.conv_{number}", residual_BDHW.relu())
            skip = layer(f"{name}.id_path", maps_BDHW) if f"{name}.id_path.w" in state else maps_BDHW
            maps_BDHW = skip + residual_BDHW / (shape.groups * shape.blocks_per_group) ** 2
        if group < shape.groups:
            pooled = nn.functional.max_pool2d(maps_BDHW, 2) if kind == "encoder" else None
            maps_BDHW = maps_BDHW.repeat_interleave(2, 2).repeat_interleave(2, 3) if pooled is None else pooled
    return layer("blocks.output.conv", maps_BDHW.relu())


class Pickled(nn.Module):
    """A module whose parameters have DALL-E's names: it stands for classes that are not installed."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            part: nn.Module = self
            for step in path:
                if step not in dict(part.named_children()):
                    part.add_module(step, Pickled({}))
                part = dict(part.named_children())[step]
            part.register_parameter(last, nn.Parameter(tensor))


FULL = attrs.evolve(SMALL, groups=3, blocks_per_group=2, width=8)


def random_state(kind: str, shape: DVAEShape = FULL) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(kind) + shape.num_codes)
    return {name: torch.randn(size, generator=generator) / 2 for name, size in published(shape, kind).items()}


def write_published(folder: Path, shape: DVAEShape = FULL) -> list[str]:
    """Write an encoder and a decoder as ``torch.save`` writes modules, of a class that nobody can import."""
    files = []
    for kind in ("encoder", "decoder"):
        path = folder / f"{kind}.pkl"
        torch.save(Pickled(random_state(kind, shape)), path)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        module = Pickled.__module__.encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(
                    name, content.replace(b"c" + module + b"\nPickled", b"cdall_e." + kind.encode() + b"\nNet")
                )
        files.append(str(path))
    return files


def test_published_files_give_dall_es_codes_and_reconstructions(tmp_path: Path) -> None:
    DVAE.convert(write_published(tmp_path), tmp_path / "dvae")
    dvae = DVAE.from_file(str(tmp_path / "dvae"))
    assert dvae.dvae_shape == FULL
    assert (dvae.num_codes, dvae.pixels_per_patch, dvae.sees) == (12, 4, "image")
    view_BCHW, grid = torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(1)), PatchGrid(3, 4)
    module = built_tokenizer(dvae, 16, 3)
    codes_BN = module(view_BCHW, grid)
    logits_BKRC = dall_e_encoder(random_state("encoder"), 0.8 * view_BCHW + 0.1, FULL, "encoder")
    assert codes_BN.tolist() == logits_BKRC.argmax(1).flatten(1).tolist()
    assert len(codes_BN.unique()) > 3
    one_hot_BKRC = nn.functional.one_hot(codes_BN.reshape(2, 3, 4), 12).permute(0, 3, 1, 2).float()
    statistics = dall_e_encoder(random_state("decoder"), one_hot_BKRC, FULL, "decoder")
    expected = ((statistics[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(module.decode(codes_BN, grid), expected)


class Malicious:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('a pickle ran code')",))


def test_a_pickle_that_names_functions_runs_none_of_them(tmp_path: Path) -> None:
    encoder, decoder = write_published(tmp_path)
    module = Pickled(random_state("encoder"))
    module.extra = Malicious()
    torch.save(module, tmp_path / "bad.pkl")
    with pytest.raises(SystemExit):
        torch.load(tmp_path / "bad.pkl", weights_only=False)
    DVAE.convert([str(tmp_path / "bad.pkl"), decoder], tmp_path / "dvae")
    DVAE.convert([encoder, decoder], tmp_path / "good")
    assert (tmp_path / "dvae").read_bytes() == (tmp_path / "good").read_bytes()


def with_pickle(path: Path, content: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", b"\0" * 16)
    return str(path)


def tensor_pickle(offset: int, size: tuple[int, ...], stride: tuple[int, ...], number: int = 4) -> bytes:
    """A pickle of one tensor in a storage of four float32 numbers."""

    class Saved:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Stored(), offset, size, stride, False, {})

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", number) if isinstance(value, Stored) else None

    content = io.BytesIO()
    Pickler(content, protocol=2).dump({"w": Saved()})
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (tensor_pickle(1, (4,), (1,)), "lies outside of its storage of 4 values"),
        (tensor_pickle(0, (2, 4), (0, 1)), "lies outside of its storage of 4 values"),
        (tensor_pickle(-1, (4,), (1,)), "other values than whole numbers"),
        (tensor_pickle(0, (4,), (1,), number=5), "storage 0 has 4 values instead of 5"),
        (pickle.dumps([1, 2]), "holds no tensors"),
        (b"cbuiltins\neval\n(S'1'\ntR(S'2'\ntR.", "TypeError"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}S'x'\nK\x01sb.", "may not set the state of a function"),
    ],
)
def test_damaged_and_hostile_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "x.pkl", content)
    with pytest.raises(TokenizerFileError, match=message):
        DVAE.convert([path, path], tmp_path / "dvae")


def test_files_of_another_structure_are_named(tmp_path: Path) -> None:
    encoder, decoder = write_published(tmp_path)
    with pytest.raises(TokenizerFileError, match="the files of the encoder and the decoder are needed, got 1 file"):
        DVAE.convert([encoder], tmp_path / "dvae")
    with pytest.raises(TokenizerFileError, match=r"do not have DALL-E's structure|does not have DALL-E's structure"):
        DVAE.convert([decoder, encoder], tmp_path / "dvae")
    (tmp_path / "other").mkdir()
    other = write_published(tmp_path / "other", attrs.evolve(FULL, num_codes=13))
    with pytest.raises(TokenizerFileError, match=r"decoder.pkl does not have DALL-E's structure: decoder.input.weight"):
        DVAE.convert([encoder, other[1]], tmp_path / "dvae")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(TokenizerFileError, match=r"is not a module that .* wrote in its zip format: BadZipFile"):
        DVAE.convert([str(tmp_path / "text"), decoder], tmp_path / "dvae")


def test_the_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dvae.safetensors"
    assert command(["tokenizer", "convert", *write_published(tmp_path), "--name", "dvae", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == DVAE.from_file(str(out)).sha256
    assert (
        command(["tokenizer", "convert", str(out), "--name", "kmeans", "--out", str(tmp_path / "kmeans.safetensors")])
        == 2
    )
    assert "tokenizer 'kmeans' converts no published files" in capsys.readouterr().err


def test_pixels_are_mapped_to_a_margin_and_back() -> None:
    unit = torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(with_margin(unit), torch.tensor([0.1, 0.3, 0.9]))
    torch.testing.assert_close(without_margin(with_margin(unit)), unit)


def test_a_grid_of_16_needs_a_view_of_128_px_of_an_image_of_224(tmp_path: Path) -> None:
    shape = attrs.evolve(SMALL, groups=4)
    (view,) = Codes(tokenizer=write_dvae(tmp_path / "dvae", shape)).views
    assert view.extent(PatchGrid(224 // 14, 224 // 14), 3) == (3, 128, 128)
    assert not view.normalize


def test_codes_of_a_dvae_conform_and_see_the_image(tmp_path: Path) -> None:
    target = Codes(tokenizer=write_dvae(tmp_path / "dvae"))
    for check in checks_for(target):
        check(target)
    assert target.sees == "image"


def test_the_receptive_field_of_a_dvae_is_no_leak_but_its_pixels_are(tmp_path: Path) -> None:
    dvae, centres = write_dvae(tmp_path / "dvae"), write_kmeans(tmp_path / "k")
    assert findings_of(case(NextPatch(target=Codes(tokenizer=dvae), head=LinearHead(), prefix=None))) == []
    # The trunk reads reconstructions: those of a dVAE show later patches, and those of k-means do not.
    leaking = findings_of(case(ReadsReconstructions(target=Codes(tokenizer=dvae), head=LinearHead(), prefix=None)))
    assert any("reads its own target, patch" in text for text in leaking)
    assert (
        findings_of(case(ReadsReconstructions(target=Codes(tokenizer=centres), head=LinearHead(), prefix=None))) == []
    )


def case(objective: NextPatch) -> Case:
    return Case("codes", StandInTrunk(), objective, GRID)


class ReadsReconstructions(NextPatch):
    """Next-patch prediction whose trunk reads decoded codes instead of pixels."""

    def build(self, trunk: Any) -> Any:
        module = super().build(trunk)
        forward = type(module).forward

        def reading(self: Any, batch: Batch) -> Any:
            images = batch.images
            predicted_BN = torch.zeros_like(images.valid_BN)
            none_BNK = images.patches_BNF.new_zeros(*predicted_BN.shape, self.target.config.tokenizer.num_codes)
            drawn_BNF = self.target.drawn(none_BNK, predicted_BN, batch)
            trunk, self.trunk = self.trunk, _Replaced(self.trunk, drawn_BNF)
            try:
                return forward(self, batch)
            finally:
                self.trunk = trunk

        module.forward = types.MethodType(reading, module)
        return module


class _Replaced(nn.Module):
    def __init__(self, trunk: Any, patches_BNF: Tensor) -> None:
        super().__init__()
        self.inner, self.patches_BNF = trunk, patches_BNF

    def forward(self, images: Any, reading: Any) -> Any:
        return self.inner(attrs.evolve(images, patches_BNF=self.patches_BNF), reading)


def test_other_channels_are_refused_and_any_patch_size_is_read(tmp_path: Path) -> None:
    dvae = write_dvae(tmp_path / "dvae")
    with pytest.raises(WrongPatches, match="reads 3 channels, and the images have 1"):
        built_tokenizer(dvae, 4, 1)
    target = built_target(Codes(tokenizer=dvae), 7, 3)
    images = images_of(torch.rand(1, 3, 14, 21), 7)
    (view,) = Codes(tokenizer=dvae).views
    batch = Batch(images=images, sample_numbers_B=torch.arange(1), views={view.key: torch.rand(1, 3, 4, 6)})
    assert target(batch).shape == (1, 6)
    drawn_BNF = target.drawn(torch.rand(1, 6, 32), images.valid_BN, batch)
    assert drawn_BNF.shape == images.patches_BNF.shape


OBJECTIVE = DiscreteVAE(
    num_codes=12, decoder_width=4, decoder_blocks=1, decoder_input=3, kl_weight=6.6, kl_steps=4, temperature_steps=2
)
TRUNK = DVAEEncoder(width=4, groups=2, blocks_per_group=1)


def unit_batch(number: int = 3, side: int = 4) -> Batch:
    pixels = torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(2))
    statistics = PixelStatistics((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    images = attrs.evolve(images_of((pixels - mean) / std, 2), statistics=statistics)
    return Batch(images=images, sample_numbers_B=torch.arange(number), seed=7)


@torch.no_grad()
def test_losses_in_evaluation_are_those_computed_by_hand() -> None:
    torch.manual_seed(0)
    module = assembled(TRUNK, OBJECTIVE).eval()
    batch = unit_batch()
    losses = module(batch)
    pixels_BCHW = unpatchify(batch.images.unit_patches_BNF, batch.images.grid, 2)
    maps_BDRC = module.trunk.encoder(0.8 * pixels_BCHW + 0.1)[-1]
    logits_BRCK = module.logits(maps_BDRC.permute(0, 2, 3, 1).relu())
    share_BRCK = logits_BRCK.softmax(-1)
    kl = (share_BRCK * (share_BRCK * 12).log()).sum()
    statistics = module.decoder(nn.functional.one_hot(logits_BRCK.argmax(-1), 12).float())
    mean, scale = statistics[:, :3], statistics[:, 3:].exp()
    x = 0.8 * pixels_BCHW + 0.1
    density = (-((x / (1 - x)).log() - mean).abs() / scale).exp() / (2 * scale * x * (1 - x))
    count = 3 * 4
    assert {name: int(loss.num_targets) for name, loss in losses.items()} == dict.fromkeys(losses, count)
    assert float(losses["reconstruction"].sum) == pytest.approx(float(-density.log().sum() / 12), rel=1e-5)
    assert float(losses["kl"].sum) == pytest.approx(float(kl), rel=1e-4)
    assert float(losses["weighted_kl"].sum) == pytest.approx(6.6 * float(kl), rel=1e-4)
    assert losses["weighted_kl"].weight == pytest.approx(1 / 12)  # beta / 192 for patches of 8 px in colour
    assert (losses["kl"].weight, losses["squared_error"].weight) == (0.0, 0.0)


def test_schedules_follow_half_cosines_in_updates() -> None:
    module = assembled(TRUNK, OBJECTIVE).train()
    like = torch.zeros(())
    weights, temperatures = [], []
    for step in range(6):
        module.after_step(step, 6)
        weights.append(float(module._kl_weight(like)))
        temperatures.append(float(module._scheduled(like, 1.0, 1 / 16, 2)))
    quarter = (1 - math.sqrt(0.5)) / 2
    assert weights == pytest.approx([0, 6.6 * quarter, 3.3, 6.6 * (1 - quarter), 6.6, 6.6], abs=1e-5)
    assert temperatures == pytest.approx([1, (1 + 1 / 16) / 2, 1 / 16, 1 / 16, 1 / 16, 1 / 16])


def test_codes_are_relaxed_by_gumbel_noise_of_each_sample() -> None:
    module = assembled(TRUNK, OBJECTIVE).train()
    module.after_step(2, 6)  # the final temperature
    batch = unit_batch(200)
    logits_BNK = torch.tensor([0.0, 1.0, *[-30.0] * 10]).expand(200, 4, 12)
    shares_BNK = module._relaxed(logits_BNK, batch)
    torch.testing.assert_close(shares_BNK.sum(-1), torch.ones(200, 4))
    # The largest share is a draw from softmax(logits): the second of two codes with odds of e to 1.
    second = float((shares_BNK.argmax(-1) == 1).float().mean())
    assert second == pytest.approx(math.e / (1 + math.e), abs=4 * math.sqrt(0.2 / 800))
    assert float(shares_BNK.amax(-1).median()) > 0.99


def dvae_experiment(stage: int = 0, **changes: Any) -> Any:
    return experiment(
        stage, "fp32", trunk=DVAEEncoder(width=8, groups=3, blocks_per_group=1), objective=OBJECTIVE, **changes
    )


def test_training_lowers_the_loss_and_counts_its_updates() -> None:
    objective = attrs.evolve(OBJECTIVE, kl_weight=0.0)
    with TrainingEngine(attrs.evolve(dvae_experiment(num_steps=30), objective=objective)) as engine:
        losses = [engine.step([whole_batch(0)]).losses["reconstruction"] for _ in range(12)]
        assert int(engine.module.updates) == 12
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("resampling", ["pool", "shuffle"])
def test_a_trained_module_exports_its_codes(resampling: Resampling, tmp_path: Path) -> None:
    torch.manual_seed(3)
    trunk = attrs.evolve(TRUNK, resampling=resampling)
    module = assembled(trunk, attrs.evolve(OBJECTIVE, decoder_resampling=resampling)).eval()
    assert module.export_tokenizer(tmp_path / "dvae", '{"a": 1}') is DVAE
    dvae, batch = DVAE.from_file(str(tmp_path / "dvae")), unit_batch()
    assert dvae.record.fitted_on == '{"a": 1}'
    pixels_BCHW = unpatchify(batch.images.unit_patches_BNF, batch.images.grid, 2)
    tokenizer = built_tokenizer(dvae, 2, 3)
    codes_BN = tokenizer(pixels_BCHW, batch.images.grid)
    assert codes_BN.tolist() == module._logits(batch).argmax(-1).tolist()
    drawn = module.predicted_patches(batch)
    decoded_BCHW = tokenizer.decode(codes_BN, batch.images.grid)
    own = attrs.evolve(batch.images, patches_BNF=drawn.patches_BNF).unit_patches_BNF
    torch.testing.assert_close(unpatchify(own, batch.images.grid, 2), decoded_BCHW)
    assert drawn.predicted_BN.all()


def test_what_cannot_be_exported_or_decoded_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotExportable, match="this run trained another trunk"):
        assembled(StandInTrunk(), OBJECTIVE).export_tokenizer(tmp_path / "x", "")
    with pytest.raises(NotExportable, match=r"trunk.width is 8, blocks_per_group 1 .*, and objective.decoder_width 4"):
        assembled(attrs.evolve(TRUNK, width=8), OBJECTIVE).export_tokenizer(tmp_path / "x", "")
    with pytest.raises(NotExportable, match=r"resampling 'shuffle', and .* decoder_resampling 'pool'"):
        assembled(attrs.evolve(TRUNK, resampling="shuffle"), OBJECTIVE).export_tokenizer(tmp_path / "x", "")
    with pytest.raises(NoPowerOfTwo, match="patches of 6 px have no power of two"):
        assembled(StandInTrunk(patch_size=6), OBJECTIVE)


def test_the_parts_of_a_small_network_have_the_described_strides() -> None:
    encoder, decoder = Encoder(4, 3, 2, 3), Decoder(FULL)
    outputs = encoder(torch.rand(1, 3, 8, 16))
    assert [tuple(maps.shape) for maps in outputs] == [(1, 16, 2, 4)] * 2
    assert decoder(torch.rand(1, 2, 4, 12)).shape == (1, 6, 8, 16)


@torch.no_grad()
@pytest.mark.parametrize("resampling", ["pool", "shuffle"])
def test_only_shuffled_channels_draw_details_within_a_patch_of_equal_neighbours(resampling: Resampling) -> None:
    torch.manual_seed(0)
    decoder = Decoder(attrs.evolve(FULL, resampling=resampling))
    statistics_B2HW = decoder.of_codes(torch.full((1, 11, 11), 5))
    inner_HW = statistics_B2HW[0, 0, 20:24, 20:24]  # the middle patch, which no zero at the border reaches
    assert (float(inner_HW.std()) < 1e-6) == (resampling == "pool")


@torch.no_grad()
@pytest.mark.parametrize("resampling", ["pool", "shuffle"])
def test_an_encoder_of_pixels_in_channels_is_linear_in_each_pixel_of_a_patch(resampling: Resampling) -> None:
    encoder = Encoder(4, 2, 1, 1, resampling)
    for group in encoder.groups:
        for block in cast(Any, group):
            block.gain = 0.0  # what remains are the convolutions beside the residual branches
    first, second, both = (torch.zeros(1, 1, 4, 4) for _ in range(3))
    first[0, 0, 0, 0] = second[0, 0, 1, 1] = both[0, 0, 0, 0] = both[0, 0, 1, 1] = 1.0
    summed = encoder(first)[-1] + encoder(second)[-1]
    assert torch.allclose(encoder(both)[-1], summed, atol=1e-6) == (resampling == "shuffle")
