"""``aimcore embed`` as a person meets it: values, resuming to equal bytes, several processes, errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import numpy as np
import pyarrow.parquet
import pytest
import torch
import zarr
from golden_files import FOLDER
from PIL import Image
from processes import launched_env, run_to_end
from safetensors.torch import save_file
from trained_runs import captioning_experiment, write_run

from aimcore import Images, PatchGrid, Reading, load_encoder
from aimcore.contracts.images import images_of, patchify
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.data.transforms import normalize, render_evaluation, to_unit
from aimcore.encoders import embedding, embedding_store
from aimcore.encoders.preprocessing import native_size
from aimcore.io.image_files import decode
from aimcore.run import command
from aimcore.running import embedding_run
from aimcore_sources import BundledEmoji
from aimcore_trunks import ViT
from aimcore_trunks.timm_models import TimmTrunk

MEAN, STD = BundledEmoji().statistics
NUM_IMAGES = 11


@pytest.fixture
def trained(tmp_path: Path) -> ObjectiveModule:
    trunk = ViT(width=16, depth=2, num_heads=2, patch_size=8)
    return write_run(tmp_path / "run", captioning_experiment(trunk=trunk), step=2).eval()


@pytest.fixture
def run(tmp_path: Path, trained: ObjectiveModule) -> str:
    assert trained is not None  # it is written there
    return str(tmp_path / "run")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of two classes, and number 4, which is damaged."""
    generator = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        place = tmp_path / "pictures" / ("cats" if number < 6 else "dogs") / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        height, width = (32, 48) if number % 2 else (40, 32)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(place)
    (tmp_path / "pictures/cats/04.png").write_bytes(b"not an image")
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 4)
    monkeypatch.setenv("COLUMNS", "200")


def embed(*words: object, status: int = 0) -> None:
    assert command(["embed", *map(str, words), "--batch-size", "2"]) == status


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> torch.Tensor:
    return decode(path.read_bytes(), path.name)


def test_row_i_holds_the_features_label_and_name_of_image_i(
    run: str, trained: ObjectiveModule, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embed(run, folder, tmp_path / "out.zarr")
    said = capfd.readouterr()
    assert "11 images, of which 1 could not be read" in said.out
    assert "cats/04.png" in said.err
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    files = sorted(folder.rglob("*.png"))
    assert [str(name) for name in group["identifiers"][:]] == [path.relative_to(folder).as_posix() for path in files]
    assert group["labels"][:].tolist() == [0, 0, 0, 0, -1, 0, 1, 1, 1, 1, 1]
    assert group["readable"][:].tolist() == [number != 4 for number in range(NUM_IMAGES)]
    assert np.isnan(group["features"][4]).all()
    for number in (0, 5, 10):
        square = render_evaluation(pixels(files[number]), 32, 0.875)
        with torch.no_grad():
            images = images_of(normalize(to_unit([square]), MEAN, STD), 8)
            expected = trained.trunk(images, Reading()).tokens_BND[0].mean(0)
        assert torch.allclose(torch.from_numpy(group["features"][number]), expected, atol=1e-5)
        assert group["grids"][number].tolist() == [4, 4]


def test_tokens_of_chosen_blocks_at_native_resolution_are_those_of_each_image_alone(
    run: str, trained: ObjectiveModule, folder: Path, tmp_path: Path
) -> None:
    embed(run, folder, tmp_path / "out.zarr", "--tokens", "--layers", "0-1", "--area", "20", "--dtype", "float16")
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert group["features"].shape == (NUM_IMAGES, 20, 16)
    for number, path in ((0, "cats/00.png"), (7, "dogs/07.png")):
        image = pixels(folder / path)
        height, width = native_size(*image.shape[1:], 8, (20, 20))
        grid = PatchGrid(height // 8, width // 8)
        resized = _resized(image, height, width)
        with torch.no_grad():
            images = Images(patchify(resized, 8), (grid,), 8)
            layers = trained.trunk(images, Reading(layers=(0, 1))).layers
        expected = (layers[0] + layers[1])[0] / 2
        found = torch.from_numpy(group["features"][number].astype(np.float32))
        assert group["grids"][number].tolist() == [grid.rows, grid.columns]
        assert torch.allclose(found[: grid.num_patches], expected, atol=4e-3)
        assert found[grid.num_patches :].isnan().all()


def _resized(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    from torchvision.transforms.v2 import functional

    mode = functional.InterpolationMode.BICUBIC
    return normalize(to_unit([functional.resize(image, [height, width], interpolation=mode)]), MEAN, STD)


def test_a_killed_command_continues_to_equal_bytes(
    run: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    embed(run, folder, tmp_path / "whole.zarr")
    write, written = embedding_store.EmbeddingStore.write, []

    def dies_after_two(self: embedding_store.EmbeddingStore, part: int, rows: embedding_store.EmbeddedRows) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, part, rows)
        written.append(part)

    with monkeypatch.context() as patched:
        patched.setattr(embedding_store.EmbeddingStore, "write", dies_after_two)
        embed(run, folder, tmp_path / "out.zarr", status=130)
    assert "interrupted: the same command continues" in capfd.readouterr().err
    out = tmp_path / "out.zarr"
    assert zarr.open_group(out, mode="r").attrs.get("complete") is None
    chunk = out / "features/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:10])  # as a file system without atomic renames may leave it
    (out / "features/c/2").mkdir()
    (out / "features/c/2/0.1f.partial").write_bytes(b"left by a killed process")
    (out / "labels/c/2").write_bytes(b"\x00" * 5)
    embed(run, folder, out)
    assert "11 images, 4 stored already" in capfd.readouterr().err
    assert content(out) == content(tmp_path / "whole.zarr")
    embed(run, folder, out)
    assert "(they were stored already)" in capfd.readouterr().out


def test_two_processes_write_what_one_writes(
    run: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(run, folder, tmp_path / "one.zarr")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        embed(run, folder, tmp_path / "two.zarr")
        chunks = sorted(path.name for path in (tmp_path / "two.zarr/features/c").iterdir())
        assert chunks == (["1"] if rank == "1" else ["0", "1", "2"])
    assert content(tmp_path / "one.zarr") == content(tmp_path / "two.zarr")


def test_torchrun_shares_the_parts_as_documented(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 256)  # as in new processes: 410 images are two parts
    source = '{"name": "bundled_emoji", "split": "test", "skin_tones": false, "styles": ["google"]}'
    assert command(["embed", run, source, str(tmp_path / "one.zarr")]) == 0
    programs = Path(sys.executable).parent
    words = ["--nproc_per_node", "2", "--no-python", programs / "aimcore", "embed", run, source, tmp_path / "two.zarr"]
    environment = launched_env() | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = run_to_end([programs / "torchrun", "--standalone", *words], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("410 images") == 1  # the first process says so
    assert sorted(path.name for path in (tmp_path / "two.zarr/features/c").iterdir()) == ["0", "1"]
    assert content(tmp_path / "one.zarr") == content(tmp_path / "two.zarr")


def test_a_parquet_file_has_the_same_rows(
    run: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embed(run, folder, tmp_path / "out.zarr")
    embed(run, folder, tmp_path / "out.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    rows = table["features"].to_pylist()
    assert rows[4] is None
    assert np.array(rows[5], dtype=np.float32).tolist() == group["features"][5].tolist()
    assert table["label"].to_pylist() == [0, 0, 0, 0, None, 0, 1, 1, 1, 1, 1]
    assert table["identifier"].to_pylist() == [str(name) for name in group["identifiers"][:]]
    assert [path.name for path in tmp_path.glob("out*")].count("out.parquet.partial.zarr") == 0
    capfd.readouterr()
    embed(run, folder, tmp_path / "out.parquet")
    assert "(they were stored already)" in capfd.readouterr().out
    embed(run, folder, tmp_path / "out.parquet", "--layers", "0", status=2)
    assert "layers ([] there, [0] here)" in capfd.readouterr().err


def test_an_encoder_of_timm_embeds_as_timm_does(folder: Path, tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    embed(f"timm:test_vit@{tmp_path}/model.safetensors", folder / "dogs", tmp_path / "out.zarr", "--pool", "class")
    known = model.default_cfg
    square = render_evaluation(pixels(folder / "dogs/06.png"), known["input_size"][1], known["crop_pct"])
    with torch.no_grad():
        expected = model.forward_features(normalize(to_unit([square]), known["mean"], known["std"]))[0, 0]
    found = zarr.open_group(tmp_path / "out.zarr", mode="r")["features"][0]
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_sizes_of_a_timm_model_are_found() -> None:
    named = TimmTrunk.of_model("vit_tiny_patch16_224")
    assert (named.trunk.patch_size, named.trunk.num_extra, named.image_size) == (16, 1, 224)
    named = TimmTrunk.of_model("resnet18")
    assert (named.trunk.patch_size, named.trunk.num_extra, named.pixels.eval_crop) == (32, 0, 0.95)


def test_an_encoder_of_transformers_is_a_folder(folder: Path, tmp_path: Path) -> None:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    preprocessing = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(preprocessing))
    embed(f"transformers:{tmp_path}/vit", folder / "dogs", tmp_path / "out.zarr")
    square = render_evaluation(pixels(folder / "dogs/06.png"), 16, 1.0)
    with torch.no_grad():
        expected = model((to_unit([square]) - 0.5) / 0.5).last_hidden_state[0, 1:].mean(0)
    found = zarr.open_group(tmp_path / "out.zarr", mode="r")["features"][0]
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "PICTURES", "out.txt"], "must end in .zarr or .parquet"),
        (["RUN", "PICTURES", "https://host/out.zarr"], "is on the web, where nothing can be written"),
        (["RUN", "PICTURES", "OUT", "--layers", "2"], "has blocks 0 to 1, and no block 2"),
        (["RUN", "PICTURES", "OUT", "--layers", "3-1"], "such as 6-11 or 0,5,11"),
        (["RUN", "PICTURES", "OUT", "--pool", "class"], "has no class token"),
        (["RUN", "PICTURES", "OUT", "--pool", "joint"], "has no text tower"),
        (["RUN", "PICTURES", "OUT", "--size", "30"], "such as 24 or 32; got"),
        (["nowhere", "PICTURES", "OUT"], "nowhere"),
        (["timm:test_vit", "PICTURES", "OUT"], "timm:test_vit@FILE"),
        (["vit:x@y", "PICTURES", "OUT"], "knows no models by name"),
        (["RUN", "{broken", "OUT"], "is not valid JSON"),
        (["RUN", '{"name": "nothing"}', "OUT"], "no source is called 'nothing'"),
        (["RUN", "nowhere", "OUT"], "nowhere"),
        (["RUN", "PICTURES", "TAKEN"], "other content than embeddings"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    words: list[str], message: str, run: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    zarr.open_group(tmp_path / "taken.zarr", mode="w")
    places = {
        "RUN": run, "PICTURES": str(folder), "OUT": str(tmp_path / "out.zarr"), "TAKEN": str(tmp_path / "taken.zarr")
    }  # fmt: skip
    embed(*(places.get(word, word) for word in words), status=2)
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out.zarr").exists()


def test_a_source_without_a_readable_image_is_an_error(
    run: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/1.png").write_bytes(b"x")
    embed(run, tmp_path / "bad", tmp_path / "out.zarr", status=2)
    assert "none of the 1 images could be read" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["bundled_emoji", '{"name": "bundled_emoji", "split": "test"}'])
def test_sources_are_named_as_in_recipes(text: str) -> None:
    assert embedding_run.source_named(text).name == "bundled_emoji"


def test_places_are_sources_by_their_suffix() -> None:
    places = ["a/b.zarr/", "s3://x/{00..09}.tar", "s3://x/b"]
    assert [embedding_run.source_named(place).name for place in places] == ["zarr", "webdataset", "image_folder"]


def test_what_a_file_does_not_say_is_given_and_remembered_for_searches(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = FOLDER / "aim_v2.weights.safetensors", tmp_path / "out.zarr"
    embed(file, folder, out, status=2)
    assert "--num-heads" in capfd.readouterr().err
    embed(file, folder, out, "--num-heads", 4, "--preprocessing", "imagenet")
    assert "is assumed" not in capfd.readouterr().err
    assert command(["search", str(out), str(folder / "dogs/07.png"), "--page", str(tmp_path / "found.html")]) == 0
    assert capfd.readouterr().out.split("dogs/07.png")[0].split()[-1] == "1.000"


def test_learned_positions_read_images_with_their_aspect_ratio(tmp_path: Path, folder: Path) -> None:
    embed(FOLDER / "aim_v2.weights.safetensors", folder, tmp_path / "out.zarr", "--num-heads", 4, "--area", 6)
    stored = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert np.asarray(stored["grids"])[:2].tolist() == [[3, 2], [2, 3]]  # 40 x 32 and 32 x 48 px
    encoder = load_encoder(FOLDER / "aim_v2.weights.safetensors", num_heads=4, preprocessing="clip")
    own = attrs.evolve(encoder.transform, image_size=None, area=6)  # type: ignore[misc]
    expected = encoder.pool(own(Image.open(folder / "cats/01.png"))[None])[0]
    np.testing.assert_allclose(np.asarray(stored["features"])[1], expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", -1], "workers: must be at least 0, got -1"),
        (["--area", 0], "area: must be at least 1, got 0"),
        (["--size", 3], "size: must be a multiple of the patch size (8), such as 8; got 3"),
    ],
)
def test_numbers_are_checked_before_anything_is_written(
    tmp_path: Path, run: str, folder: Path, capfd: pytest.CaptureFixture[str], words: list[object], said: str
) -> None:
    embed(run, folder, tmp_path / "out.zarr", *words, status=2)
    assert said in capfd.readouterr().err
    assert not (tmp_path / "out.zarr").exists()


def test_a_name_that_is_neither_folder_nor_source(tmp_path: Path, run: str, capfd: pytest.CaptureFixture[str]) -> None:
    embed(run, "bundled_emojis", tmp_path / "out.zarr", status=2)
    assert (
        "there is no folder 'bundled_emojis', and no source of this name (did you mean 'bundled_emoji' or "
        in capfd.readouterr().err
    )


@pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
def test_images_that_were_exchanged_are_not_taken_for_those_that_are_stored(
    name: str, run: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embed(run, folder, tmp_path / name)
    (folder / "cats/02.png").rename(folder / "dogs/99.png")
    embed(run, folder, tmp_path / name, status=2)
    said = " ".join(capfd.readouterr().err.split())
    assert "holds embeddings of other images: image 2 was 'cats/02.png', and is 'cats/03.png' in the source now" in said


def test_an_interrupted_output_does_not_continue_with_other_images(
    run: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write = embedding_store.EmbeddingStore.write

    def stopping(self: embedding_store.EmbeddingStore, part: int, rows: object) -> None:
        if part == 1:
            raise KeyboardInterrupt
        write(self, part, rows)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(embedding_store.EmbeddingStore, "write", stopping)
        embed(run, folder, tmp_path / "out.zarr", status=130)
    (folder / "cats/00.png").rename(folder / "dogs/99.png")
    embed(run, folder, tmp_path / "out.zarr", status=2)
    assert "image 0 was 'cats/00.png'" in " ".join(capfd.readouterr().err.split())
    (folder / "dogs/99.png").rename(folder / "cats/00.png")
    embed(run, folder, tmp_path / "out.zarr")


def test_a_file_of_an_image_is_no_source(
    run: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    embed(run, folder / "cats/00.png", tmp_path / "out.zarr", status=2)
    assert "is a file: give the folder of images that it is in" in " ".join(capfd.readouterr().err.split())


def test_progress_is_shown_after_every_batch(folder: Path, run: str, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    embedding_run.embed_source(
        run, str(folder), str(tmp_path / "out.zarr"), embedding.Embedding(reads="pooled", batch_size=2),
        progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    # Three parts of four, four and three images; number 4 is in no batch, and counts when its part is stored.
    assert seen == [("embedding", done, 11) for done in (2, 4, 4, 6, 7, 8, 10, 11, 11)]
