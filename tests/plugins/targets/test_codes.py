"""Codes of an image tokenizer as targets: cross-entropy, views, pictures, and what the causality check says."""

from __future__ import annotations

import math
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import zarr
from core.engine.toys import experiment
from image_tokenizers import write_dvae, write_kmeans
from PIL import Image
from torch import Tensor

from aimcore import (
    Augmentation,
    Batch,
    Data,
    DataNotFound,
    Images,
    ImageTokenizer,
    InvalidValue,
    PatchGrid,
    PixelStatistics,
    built_target,
    component,
)
from aimcore.contracts.augmentations import RandAugment
from aimcore.contracts.images import images_of, patchify, unpatchify
from aimcore.contracts.targets import Sees
from aimcore.data.loading import evaluation_batches, train_steps
from aimcore.engine import build_module
from aimcore.io.stored_codes import WrongCodes
from aimcore.report.sample_making import compute_samples
from aimcore.running.tokenizer_fitting import TokenizerImages
from aimcore.running.tokenizer_inspection import RandomTransform, encode_images
from aimcore.testing import Case
from aimcore.testing.causality import findings_of
from aimcore.testing.fixtures import GRID
from aimcore.testing.small_parts import StandInTrunk
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import ImageFolder
from aimcore_targets import Codes
from aimcore_targets.codes import CannotEncode

CENTRES_KF = torch.tensor([[0.0] * 4, [0.5] * 4, [1.0] * 4])


@component("counted_levels")
class Levels(ImageTokenizer):
    """Three levels of brightness of a view of 2 px per patch; codes depend on the patch to the left too."""

    side: int | None = 2
    blur: float = 0.0

    @property
    def num_codes(self) -> int:
        return 64

    @property
    def sees(self) -> Sees:
        return "image" if self.blur else "patch"

    @property
    def pixels_per_patch(self) -> int | None:
        return self.side

    def encode(self, view_BCHW: Tensor, grid: PatchGrid) -> Tensor:
        brightness_BRC = patchify(view_BCHW, self.side or 4).mean(-1).unflatten(1, (grid.rows, grid.columns))
        before_BRC = torch.nn.functional.pad(brightness_BRC, (1, 0))[..., :-1]
        return ((1 - self.blur) * brightness_BRC + self.blur * before_BRC).flatten(1).mul(63).clamp(0, 63).long()


def batch_of(patches_BNF: Tensor, grid: PatchGrid, **changes: object) -> Batch:
    images = Images(patches_BNF=patches_BNF, grids=(grid,) * len(patches_BNF), patch_size=2)
    return Batch(images=attrs.evolve(images, **changes), sample_numbers_B=torch.arange(len(patches_BNF)))


def test_codes_are_those_of_pixels_before_normalisation(tmp_path: Path) -> None:
    target = Codes(tokenizer=write_kmeans(tmp_path / "k", CENTRES_KF, patch_size=2, num_channels=1))
    unit_BNF = torch.tensor([0.1, 0.6, 0.9, 0.4]).reshape(1, 4, 1).expand(-1, -1, 4)
    statistics = PixelStatistics((0.3,), (0.25,))
    batch = batch_of((unit_BNF - 0.3) / 0.25, PatchGrid(2, 2), statistics=statistics)
    module = built_target(target, 2, 1)
    assert module(batch).tolist() == [[0, 1, 2, 1]]
    assert target.num_outputs(2, 1) == 3
    assert (target.views, target.sees) == ((), "patch")


def test_the_loss_is_cross_entropy_in_nats(tmp_path: Path) -> None:
    target = Codes(tokenizer=write_kmeans(tmp_path / "k", CENTRES_KF, patch_size=2, num_channels=1))
    loss_M = target.loss(torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(2), 0.0]]), torch.tensor([2, 1]))
    assert loss_M.tolist() == pytest.approx([math.log(3), math.log(2)])


def test_predictions_are_drawn_as_centres_beside_the_true_codes_of_other_patches(tmp_path: Path) -> None:
    target = Codes(tokenizer=write_kmeans(tmp_path / "k", CENTRES_KF, patch_size=2, num_channels=1))
    statistics = PixelStatistics((0.3,), (0.25,))
    batch = batch_of(torch.full((1, 3, 4), (0.9 - 0.3) / 0.25), PatchGrid(1, 3), statistics=statistics)
    predictions_BNK = torch.eye(3)[torch.tensor([[0, 1, 0]])]
    drawn_BNF = built_target(target, 2, 1).drawn(predictions_BNK, torch.tensor([[True, True, False]]), batch)
    assert (drawn_BNF * 0.25 + 0.3)[0, :, 0].tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)


def test_a_view_of_another_size_is_asked_for_read_and_drawn_in_patches() -> None:
    target = Codes(tokenizer=Levels())
    (view,) = target.views
    assert view.extent(PatchGrid(16, 16), 3) == (3, 32, 32)
    assert not view.normalize
    view_BCHW = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 2, 4)
    batch = attrs.evolve(batch_of(torch.zeros(1, 2, 12), PatchGrid(1, 2)), views={view.key: view_BCHW})
    assert built_target(target, 2, 3)(batch).tolist() == [[0, 63]]


def test_padded_images_of_different_grids_have_codes_of_patches_only(tmp_path: Path) -> None:
    kmeans = write_kmeans(tmp_path / "k", CENTRES_KF, patch_size=2, num_channels=1)
    patches_BNF = torch.tensor([[0.0, 1.0, 0.0], [0.6, 0.6, 1.0]]).unsqueeze(-1).expand(-1, -1, 4)
    batch = batch_of(patches_BNF, PatchGrid(1, 2), grids=(PatchGrid(1, 2), PatchGrid(3, 1)))
    assert built_target(Codes(tokenizer=kmeans), 2, 1)(batch)[batch.images.valid_BN].tolist() == [0, 2, 1, 1, 2]
    with pytest.raises(CannotEncode, match="'counted_levels' reads whole images, and the images of this batch have"):
        built_target(Codes(tokenizer=Levels(side=None, blur=0.5)), 2, 1)(batch)


def test_weights_of_a_file_are_in_no_checkpoint(tmp_path: Path) -> None:
    assert built_target(Codes(tokenizer=write_kmeans(tmp_path / "k")), 4, 3).state_dict() == {}


def case(target: Codes) -> Case:
    return Case("codes", StandInTrunk(), NextPatch(target=target, head=LinearHead(), prefix=None), GRID)


def test_next_patch_on_codes_is_causal_whatever_the_codes_see(tmp_path: Path) -> None:
    assert findings_of(case(Codes(tokenizer=write_kmeans(tmp_path / "k")))) == []
    assert findings_of(case(Codes(tokenizer=Levels()))) == []
    assert findings_of(case(Codes(tokenizer=Levels(blur=0.4)))) == []


@component("short_sighted")
class ShortSighted(Levels):
    """Sees the patch to the left, and says that it does not."""

    @property
    def sees(self) -> Sees:
        return "patch"


def test_codes_that_reach_beyond_their_patch_unsaid_look_like_a_leak() -> None:
    found = findings_of(case(Codes(tokenizer=ShortSighted(blur=0.4))))
    assert any("reads its own target" in text and "one of the 2 it depends on" in text for text in found)


def test_unnormalised_images_are_their_own_pixels() -> None:
    pixels_BCHW = torch.rand(1, 3, 4, 6)
    images = images_of(pixels_BCHW, 2)
    assert images.unit_patches_BNF is images.patches_BNF
    statistics = PixelStatistics((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    normal = attrs.evolve(images_of((pixels_BCHW - mean) / std, 2), statistics=statistics)
    torch.testing.assert_close(unpatchify(normal.unit_patches_BNF, normal.grid, 2), pixels_BCHW)
    torch.testing.assert_close(normal.normalized(images.patches_BNF), normal.patches_BNF)


def test_the_report_has_decoded_codes_and_counts_them(tmp_path: Path) -> None:
    objective = NextPatch(target=Codes(tokenizer=write_kmeans(tmp_path / "k")), head=LinearHead(), prefix=None)
    chosen = experiment(0, "fp32", trunk=StandInTrunk(), objective=objective)
    module = build_module(chosen)
    samples = compute_samples(chosen, module, "now")
    assert samples.absent.keys() <= {"attention"}
    assert samples.images_BHWC is not None
    assert samples.decoded_BHWC is not None
    assert samples.predicted_BHWC is not None
    assert samples.code_counts_K is not None
    centres = (write_kmeans(tmp_path / "k").tensors()["centres_KF"] * 255).round()
    for picture in (samples.decoded_BHWC, samples.predicted_BHWC):
        patches_PF = patchify(torch.from_numpy(picture).permute(0, 3, 1, 2), 4).flatten(0, 1)
        assert torch.cdist(patches_PF.double(), centres.double()).amin(1).max() < 7
    assert samples.code_counts_K.shape == (16,)
    assert samples.code_counts_K.sum() == len(chosen.data.validation.open()) * samples.num_patches
    assert not samples.uses_truth


def test_pictures_of_normalised_centres_say_that_they_use_the_truth(tmp_path: Path) -> None:
    target = Codes(tokenizer=write_kmeans(tmp_path / "k", space="normalized"))
    chosen = experiment(0, "fp32", trunk=StandInTrunk(), objective=NextPatch(target=target, head=LinearHead()))
    assert compute_samples(chosen, build_module(chosen), "now").uses_truth


WHOLE = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_probability=0.0)


def with_stored_codes(tmp_path: Path, augmentation: Augmentation = WHOLE) -> tuple[TokenizerImages, Codes]:
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = generator.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    source = ImageFolder(url=str(tmp_path / "photos"))
    data = Data(train=source, validation=source, batch_size=4, image_size=8, augmentation=augmentation)
    images, url = TokenizerImages(data, 4), str(tmp_path / "codes.zarr")
    target = Codes(tokenizer=write_dvae(tmp_path / "dvae"))
    encode_images(target.tokenizer, images, url, lambda *_: None)
    return images, attrs.evolve(target, stored=url)


def batches_of(images: TokenizerImages, target: Codes) -> list[Batch]:
    source = images.data.train.open()
    train = train_steps(images.data, source, patch_size=4, views=target.views, seed=3, num_steps=3)
    held_out = evaluation_batches(images.data, source, patch_size=4, views=target.views, batch_size=3)
    return [*(batch for step in train for batch in step), *held_out]


def test_stored_codes_are_those_computed_on_the_fly(tmp_path: Path) -> None:
    images, target = with_stored_codes(tmp_path)
    stored, computed = built_target(target, 4, 3), built_target(attrs.evolve(target, stored=None), 4, 3)
    for batch in batches_of(images, target):
        assert stored(batch).tolist() == computed(batch).tolist()
    stored.tokenizer.encode = None  # not called
    assert stored(batches_of(images, target)[0]).dtype == torch.int64


def test_codes_of_other_renderings_are_not_found(tmp_path: Path) -> None:
    images, target = with_stored_codes(tmp_path)
    batch = batches_of(images, target)[0]
    other = attrs.evolve(batch, images=attrs.evolve(batch.images, patches_BNF=batch.images.patches_BNF + 1e-3))
    with pytest.raises(WrongCodes, match=r"has no codes of image .*png as it was rendered here"):
        built_target(target, 4, 3)(other)


def test_stored_codes_of_another_tokenizer_damaged_or_missing_are_refused(tmp_path: Path) -> None:
    images, target = with_stored_codes(tmp_path)
    with pytest.raises(WrongCodes, match="has codes of the tokenizer with SHA-256"):
        built_target(attrs.evolve(target, tokenizer=write_kmeans(tmp_path / "k")), 4, 3)
    with pytest.raises(DataNotFound, match="cannot read the stored codes"):
        built_target(attrs.evolve(target, stored=str(tmp_path / "nothing")), 4, 3)
    with pytest.raises(InvalidValue, match="needs a tokenizer with a file, and 'counted_levels' has none"):
        Codes(tokenizer=Levels(), stored="codes.zarr")
    codes = zarr.open_group(tmp_path / "codes.zarr", mode="r+")["codes"]
    codes[0, 0] = codes[0, 0] + 1
    with pytest.raises(WrongCodes, match="is damaged: its codes do not have the recorded digest"):
        built_target(target, 4, 3)(batches_of(images, target)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": (0.9, 1.0)},
        {"crop_ratio": (0.9, 1.0)},
        {"flip_probability": 0.5},
        {"color_jitter": (0.4, 0.4, 0.2, 0.1)},
        {"rand_augment": RandAugment()},
    ],
)
def test_codes_of_random_transforms_are_never_stored(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RandomTransform, match="only if training images are rendered without random changes"):
        with_stored_codes(tmp_path, attrs.evolve(WHOLE, **change))
    assert not (tmp_path / "codes.zarr").exists()
