"""k-means on patches: scikit-learn's labels, fits that stream, files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tokenizers import write_kmeans
from PIL import Image
from sklearn.cluster import MiniBatchKMeans

from aimcore import FittingData, InvalidValue, PatchGrid, built_tokenizer
from aimcore.contracts.images import patchify
from aimcore.io.tokenizer_files import NotATokenizerFile, TokenizerRecord, tokenizer_record, write_tokenizer
from aimcore.run import command
from aimcore_tokenizers import KMeans, KMeansFit, files
from aimcore_tokenizers.files import MissingLibrary, TokenizerFileError
from aimcore_tokenizers.fitted import WrongPatches
from aimcore_tokenizers.kmeans_fitting import TooFewPatches

GRID = PatchGrid(2, 3)


class Stream(FittingData):
    """Random images of 2 x 3 patches of 2 px, grey."""

    def __init__(self, pixels_BCHW: torch.Tensor) -> None:
        self.patch_size, self.num_channels, self.record = 2, 1, '{"from": "a test"}'
        self.pixels_BCHW = pixels_BCHW
        self.passes = 0

    def views(self, num_images: int, pixels_per_patch: int | None = None) -> Iterator[torch.Tensor]:
        self.passes += 1
        yield from self.pixels_BCHW[:num_images].split(5)

    def progress(self, doing: str, done: int, total: int) -> None:
        assert 0 <= done <= total


def noise(number: int = 20) -> torch.Tensor:
    return torch.rand(number, 1, 4, 6, generator=torch.Generator().manual_seed(0))


def normalized(patches_PF: np.ndarray) -> np.ndarray:
    return (patches_PF - patches_PF.mean(1, keepdims=True)) / np.sqrt(patches_PF.var(1, ddof=1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("space", ["raw", "normalized"])
def test_codes_equal_scikit_learns_labels_on_the_same_centres(space: str, tmp_path: Path) -> None:
    view_BCHW = noise(50)
    patches_PF = patchify(view_BCHW, 2).flatten(0, 1).numpy().astype(np.float64)
    seen_PF = patches_PF if space == "raw" else normalized(patches_PF)
    fitted = MiniBatchKMeans(7, n_init=1, random_state=0).fit(seen_PF)
    centres_KF = torch.from_numpy(fitted.cluster_centers_).float()
    kmeans = write_kmeans(tmp_path / "k", centres_KF, patch_size=2, num_channels=1, space=space)
    codes_BN = built_tokenizer(kmeans, 2, 1)(view_BCHW, GRID)
    assert codes_BN.flatten().tolist() == fitted.predict(seen_PF).tolist()
    assert len(set(codes_BN.flatten().tolist())) == 7


@pytest.mark.parametrize("space", ["raw", "normalized"])
def test_a_fit_streams_counts_its_codes_and_records_its_inertia(space: str, tmp_path: Path) -> None:
    data = Stream(noise())
    KMeansFit(num_codes=9, num_images=17, batch_patches=11, passes=2, space=space).fit(data, tmp_path / "k")
    kmeans = KMeans.from_file(str(tmp_path / "k"))
    centres_KF, counts_K = (kmeans.tensors()[name].numpy() for name in ("centres_KF", "counts_K"))
    patches_PF = patchify(data.pixels_BCHW[:17], 2).flatten(0, 1).numpy()
    seen_PF = patches_PF if space == "raw" else normalized(patches_PF)
    distance_PK = ((seen_PF[:, None] - centres_KF) ** 2).sum(-1)
    assert counts_K.tolist() == np.bincount(distance_PK.argmin(1), minlength=9).tolist()
    assert counts_K.min() > 0
    assert kmeans.record.settings["inertia"] == pytest.approx(distance_PK.min(1).mean(), rel=1e-5)
    assert kmeans.record.fitted_on == data.record
    assert kmeans.record.settings["inertia"] < 0.8 * ((seen_PF - seen_PF.mean(0)) ** 2).sum(1).mean()
    assert (kmeans.num_codes, data.passes) == (9, 4)  # the sample, two passes, the counts


def test_the_same_fit_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        KMeansFit(num_codes=5, num_images=20).fit(Stream(noise()), tmp_path / name)
    assert KMeans.from_file(str(tmp_path / "one")).sha256 == KMeans.from_file(str(tmp_path / "two")).sha256


def test_centres_without_a_patch_become_the_patches_that_are_farthest() -> None:
    # Three different patches; two of the three centres begin at the first.
    values = torch.tensor([0.0, 0.0, 0.5, 0.5, 0.5, 1.0])
    view_BCHW = values.reshape(1, 1, 2, 3).repeat_interleave(2, -1).repeat_interleave(2, -2)
    fit = KMeansFit(num_codes=3, num_images=1, batch_patches=6)
    found = fit._with_used_centres(Stream(view_BCHW), np.array([[0.0] * 4, [0.0] * 4, [0.5] * 4], np.float32))
    assert sorted(found.centres_KF[:, 0].tolist()) == [0.0, 0.5, 1.0]
    assert sorted(found.counts_K.tolist()) == [1, 2, 3]
    assert found.inertia == 0


def test_more_centres_than_different_patches_leave_some_unused(tmp_path: Path) -> None:
    KMeansFit(num_codes=4, num_images=3).fit(Stream(torch.ones(3, 1, 4, 6)), tmp_path / "k")
    assert sorted(KMeans.from_file(str(tmp_path / "k")).tensors()["counts_K"].tolist()) == [0, 0, 0, 18]


def test_raw_centres_decode_to_themselves(tmp_path: Path) -> None:
    centres_KF = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.1, 0.2, 0.3, 0.4]])
    module = built_tokenizer(write_kmeans(tmp_path / "k", centres_KF, patch_size=2, num_channels=1), 2, 1)
    decoded_BCHW = module.decode(torch.tensor([[1, 0]]), PatchGrid(1, 2))
    expected = torch.tensor([[0.1, 0.2, 0.0, 0.25], [0.3, 0.4, 0.5, 1.0]])
    torch.testing.assert_close(decoded_BCHW[0, 0], expected)


def test_normalised_centres_decode_with_mean_and_variance_of_the_true_patch(tmp_path: Path) -> None:
    centres_KF = torch.tensor([[-1.0, 1.0, 0.0, 0.0]])
    kmeans = write_kmeans(tmp_path / "k", centres_KF, patch_size=2, num_channels=1, space="normalized")
    module, codes_BN = built_tokenizer(kmeans, 2, 1), torch.zeros(1, 1, dtype=torch.int64)
    view_BCHW = torch.tensor([[[[0.1, 0.3], [0.5, 0.7]]]])  # mean 0.4, unbiased variance 0.2 / 3
    scale = (0.2 / 3 + 1e-6) ** 0.5
    decoded = module.decode(codes_BN, PatchGrid(1, 1), view_BCHW).flatten().tolist()
    assert decoded == pytest.approx([0.4 - scale, 0.4 + scale, 0.4, 0.4])
    assert module.decode(codes_BN, PatchGrid(1, 1)).flatten().tolist() == pytest.approx([0.3, 0.7, 0.5, 0.5])


def test_other_patches_other_files_and_changed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    kmeans = write_kmeans(path, patch_size=2)
    with pytest.raises(WrongPatches, match="patches of 2 px with 3 channels, and the images have patches of 4 px with"):
        built_tokenizer(kmeans, 4, 3)
    write_kmeans(path, num_codes=15, patch_size=2)
    with pytest.raises(TokenizerFileError, match=r"has the SHA-256 .* is recorded"):
        built_tokenizer(kmeans, 2, 3)
    path.write_bytes(b"\x80\x04pickled")
    with pytest.raises(NotATokenizerFile, match="is not the file of an image tokenizer: it does not begin with"):
        KMeans.from_file(str(path)).num_codes  # noqa: B018
    write_tokenizer(path, TokenizerRecord(tokenizer="dvae", settings={}, fitted_on=""), {})
    with pytest.raises(TokenizerFileError, match="is the file of a tokenizer 'dvae', and 'kmeans' is to read it"):
        KMeans.from_file(str(path)).num_codes  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codes": 2, "patch_size": 2, "num_channels": 1, "space": "lab", "inertia": 0.0}, "space"),
        ({"num_codes": 0, "patch_size": 2, "num_channels": 1, "space": "raw", "inertia": 0.0}, "num_codes"),
        ({"num_codes": 2, "extra": 2}, "extra"),
        ({"num_codes": 3, "patch_size": 2, "num_channels": 1, "space": "raw", "inertia": 0.0}, "centres_KF must be"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    tensors = {"centres_KF": torch.zeros(2, 4), "counts_K": torch.zeros(2, dtype=torch.int64)}
    write_tokenizer(tmp_path / "k", TokenizerRecord(tokenizer="kmeans", settings=settings, fitted_on=""), tensors)
    with pytest.raises(TokenizerFileError, match=f"k is damaged: .*{message}"):
        built_tokenizer(KMeans.from_file(str(tmp_path / "k")), 2, 1)


def test_too_few_patches_and_a_missing_library_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooFewPatches, match="200 centres need at least as many patches, and 20 images have 120"):
        KMeansFit(num_codes=200, num_images=20).fit(Stream(noise()), tmp_path / "k")
    with pytest.raises(InvalidValue, match="num_codes: must be at least 1"):
        KMeansFit(num_codes=0)

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(files, "import_module", missing)
    with pytest.raises(MissingLibrary, match=r"'kmeans' needs the package scikit-learn .*'aimcore\[kmeans\]'"):
        KMeansFit(num_codes=2).fit(Stream(noise()), tmp_path / "k")
    assert not (tmp_path / "k").exists()


@pytest.fixture
def photos(tmp_path: Path) -> str:
    generator = np.random.default_rng(0)
    for number in range(4):
        (tmp_path / "photos").mkdir(exist_ok=True)
        pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return json.dumps({"name": "image_folder", "url": str(tmp_path / "photos")})


def fitting(photos: str, out: Path, *words: str) -> int:
    few = ("--set", "num_codes=6", "--set", "num_images=8", "--image-size", "8", "--patch-size", "4")
    return command(["tokenizer", "fit", photos, "--name", "kmeans", "--out", str(out), *few, *words])


def test_the_command_fits_prints_the_recipe_and_inspects(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "k.safetensors"
    assert fitting(photos, out) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "kmeans", "path": str(out), "sha256": KMeans.from_file(str(out)).sha256
    }  # fmt: skip
    assert json.loads(tokenizer_record(str(out)).fitted_on)["data"]["train"]["name"] == "image_folder"
    picture = tmp_path / "k.png"
    assert command(["tokenizer", "inspect", str(out), "--picture", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_codes"], found["num_images"], found["num_patches"]) == (6, 4, 16)
    assert 1 <= found["num_used"] <= 6
    assert found["perplexity"] == pytest.approx(np.exp(found["entropy"]))
    assert 0 < found["mean_squared_error"] < 0.1
    with Image.open(picture) as image:
        assert image.size == (4 * (96 + 4), 2 * (96 + 4))


def test_the_command_names_what_it_was_not_given(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "k"
    for words, message in (
        (["--set", "codes=3"], "codes: unknown field"),
        (["--set", "space=lab"], "space"),
        (["--patch-size", "3"], "images of 8 px do not divide into patches of 3 px"),
    ):
        assert fitting(photos, out, *words) == 2
        assert message in capsys.readouterr().err
    assert command(["tokenizer", "fit", photos, "--name", "bytes", "--out", str(out)]) == 2
    assert "'bytes' is not a tokenizer that this command fits; it fits kmeans. 'aimcore" in capsys.readouterr().err
    for images, message in (
        ("photo_folder", "source: no source is called 'photo_folder'"),
        ('{"name": "image_folder", ', "source: is not valid JSON (Expecting property name"),
        (str(tmp_path / "photos"), f"""write '{{"name": "image_folder", "url": "{tmp_path / "photos"}"}}'"""),
    ):
        assert command(["tokenizer", "fit", images, "--name", "kmeans", "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    write_kmeans(out)
    assert command(["tokenizer", "inspect", str(out)]) == 2
    assert "does not say which images it was fitted on" in capsys.readouterr().err


def test_an_existing_file_is_refused_before_anything_is_fitted(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "k"
    out.write_text("the file that a recipe names")
    for words in (["fit", photos, "--name", "kmeans"], ["convert", "x.pkl", "--name", "dvae"], ["export", "run"]):
        assert command(["tokenizer", *words, "--out", str(out)]) == 2
        assert f"{out} exists already" in capsys.readouterr().err
    assert out.read_text() == "the file that a recipe names"


def test_few_images_that_are_read_often_are_named_in_the_log(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fitting(photos, tmp_path / "few") == 0
    assert "crops of" not in capsys.readouterr().err
    assert fitting(photos, tmp_path / "many", "--set", "num_images=80") == 0
    assert "each pass reads 80 crops of 4 images, 20 of each" in capsys.readouterr().err


def test_other_images_are_inspected_in_the_sizes_of_the_fit(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "k.safetensors", str(tmp_path / "k.png")
    assert fitting(photos, out) == 0
    capsys.readouterr()
    inspect = ["tokenizer", "inspect", str(out), "--on", photos, "--json", "--picture"]
    assert command([*inspect, picture]) == 0
    assert json.loads(capsys.readouterr().out)["num_patches"] == 16  # 4 images of 2 x 2 patches
    assert command([*inspect, picture, "--image-size", "16"]) == 0
    assert json.loads(capsys.readouterr().out)["num_patches"] == 64
    assert command([*inspect, str(tmp_path / "k.jpg")]) == 2
    assert "picture: must be the name of a PNG file" in capsys.readouterr().err


def test_codes_of_a_source_are_stored_without_random_crops(
    photos: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "k.safetensors"
    assert fitting(photos, out) == 0
    assert command(["tokenizer", "encode", photos, str(out), "--out", str(tmp_path / "codes.zarr")]) == 0
    # Square crops of the 4 square images at scale 1, and the same images cropped for validation.
    assert "stored the codes of 8 different images" in capsys.readouterr().out


def test_the_settings_of_a_fit_are_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["describe", "tokenizers/kmeans"]) == 0
    _, settings = capsys.readouterr().out.split("settings of aimcore tokenizer fit")
    assert "num_images: int = 100000" in settings


def test_an_interrupted_fit_writes_nothing(photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KMeansFit, "_moved", interrupted)
    assert fitting(photos, tmp_path / "k") == 130
    assert not (tmp_path / "k").exists()
