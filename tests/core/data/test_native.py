"""Native resolution: areas, sizes, padding, and the stream of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from aimcore import Augmentation, Batch, Data, InvalidValue, NativeResolution, OpenSource, PatchGrid, Sample
from aimcore.data import evaluation_batches, train_steps
from aimcore.data.native import NativeSteps, areas, fitted_size, pack
from aimcore_sources import ImageFolder

MakeData = Callable[..., Data]
Same = Callable[[Batch, Batch], bool]
SMALL = NativeResolution(patches_per_step=512, log2_area=(3, 6), images_multiple_of=4)
SIZES = [(30, 20), (10, 40), (16, 16), (5, 90), (77, 8)]


class Shapes(OpenSource):
    """Pictures of many aspect ratios; each has one colour, its index."""

    def __len__(self) -> int:
        return 40

    def read(self, index: int) -> Sample:
        picture = torch.full((3, *SIZES[index % len(SIZES)]), index + 1, dtype=torch.uint8)
        return Sample(image=picture, identifier=str(index), label=index % 3)


def test_areas_are_powers_of_a_truncated_normal_number() -> None:
    """A standard normal truncated to [-1, 1] has the variance 1 - 2 phi(1) / (Phi(1) - Phi(-1)) = 0.2911."""
    native = NativeResolution(patches_per_step=2**15, log2_area=(7, 12))
    area_S = areas(native, seed=3, num_steps=40_000)
    normal_S = (np.log2(area_S) - 7) / 5 * 2 - 1
    assert area_S.min() == 128
    assert 4_000 < area_S.max() <= 4_096
    assert abs(normal_S.mean()) < 0.01
    assert normal_S.var() == pytest.approx(0.2911, abs=0.005)


def test_the_extremes_of_the_area_can_be_one() -> None:
    native = NativeResolution(patches_per_step=72, log2_area=(3.2, 3.2))
    assert set(areas(native, seed=0, num_steps=50).tolist()) == {math.floor(2**3.2)}


def test_areas_are_a_pure_function_of_seed_and_step() -> None:
    assert areas(SMALL, 1, 20).tolist() == areas(SMALL, 1, 50)[:20].tolist()
    assert areas(SMALL, 1, 20).tolist() != areas(SMALL, 2, 20).tolist()


def test_no_step_has_more_patches_than_it_may_and_the_stream_has_no_gaps() -> None:
    steps = NativeSteps.of(SMALL, 5, 300)
    assert (steps.area_S * steps.num_images_S <= 512).all()
    # One multiple more would not have fitted.
    assert (steps.area_S * (steps.num_images_S + 4) > 512).all()
    assert steps.first_S.tolist() == [0, *np.cumsum(steps.num_images_S)[:-1].tolist()]
    assert len(set(steps.num_images_S.tolist())) > 5


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        ((100, 100), 16, (56, 56)),  # four rows of four; a fifth does not fit
        ((100, 100), 24, (56, 56)),
        ((100, 200), 8, (28, 56)),  # up and down alike: two rows of four
        ((10, 20), 8, (28, 56)),
        ((200, 300), 6, (28, 42)),
        ((1, 1000), 16, (1, 224)),  # one row, of at least one pixel
        ((1000, 1), 16, (224, 1)),
        ((50, 50), 1, (14, 14)),
        ((3, 2), 3, (21, 14)),  # two columns would need three rows: 6 patches
    ],
)
def test_an_image_gets_the_most_patches_that_fit(size: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert fitted_size(*size, 14, area) == expected


def test_no_larger_scale_would_fit_and_half_the_area_is_filled() -> None:
    generator = np.random.default_rng(0)
    for height, width, area in zip(*generator.integers(1, 300, (3, 500)).tolist(), strict=True):
        fitted = fitted_size(height, width, 4, area)
        rows, columns = (math.ceil(side / 4) for side in fitted)
        assert area // 2 <= rows * columns <= area
        scale = min(rows * 4 / height, columns * 4 / width)
        larger = [math.ceil(side * scale * (1 + 1e-9) / 4) for side in (height, width)]
        assert larger[0] * larger[1] > area
        assert abs(fitted[0] * width - fitted[1] * height) < max(height, width)


def test_zeros_fill_the_edges_and_then_whole_patches(data: MakeData) -> None:
    picture = torch.full((3, 3, 6), 255, dtype=torch.uint8)
    settings = data(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    images = pack([picture], 5, settings, 4, padding_is_image=True)
    assert images.grids == (PatchGrid(1, 2),)
    inside = images.patches_BNF[0].reshape(5, 4, 4, 3)[..., 0]
    assert inside[0].tolist() == [[1.0] * 4] * 3 + [[0.0] * 4]
    assert inside[1].tolist() == [[1.0, 1.0, 0.0, 0.0]] * 3 + [[0.0] * 4]
    assert inside[2:].abs().sum() == 0
    assert images.padding_share == pytest.approx(1 - 18 / 80)


def test_padding_that_is_image_is_valid_and_its_places_go_on(data: MakeData) -> None:
    images = pack([torch.ones(3, 4, 8, dtype=torch.uint8)], 5, data(), 4, padding_is_image=True)
    assert not images.is_padded
    assert images.valid_BN.all()
    assert images.lengths == (5,)
    assert images.positions_BN2[0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]


def test_masked_padding_is_invalid_also_where_all_grids_are_one(data: MakeData) -> None:
    images = pack([torch.ones(3, 4, 8, dtype=torch.uint8)] * 2, 5, data(), 4, padding_is_image=False)
    assert images.is_padded
    assert images.valid_BN.tolist() == [[True, True, False, False, False]] * 2
    assert images.lengths == (2, 2)
    assert images.positions_BN2[1, 2:].tolist() == [[-1, -1]] * 3
    assert images.pixels_BCHW.shape == (2, 3, 4, 8)


def test_a_step_has_one_area_and_its_share_of_images_on_every_rank(data: MakeData) -> None:
    settings = data(native=SMALL)
    parts = [
        list(train_steps(settings, Shapes(), patch_size=4, seed=2, num_steps=6, rank=rank, world_size=2))
        for rank in (0, 1)
    ]
    whole = list(train_steps(settings, Shapes(), patch_size=4, seed=2, num_steps=6))
    for (first,), (second,), (together,) in zip(*parts, whole, strict=True):
        assert first.images.patches_BNF.shape == second.images.patches_BNF.shape
        both = torch.cat([first.images.patches_BNF, second.images.patches_BNF])
        assert torch.equal(both, together.images.patches_BNF)
        assert first.images.grids + second.images.grids == together.images.grids


def test_steps_begin_where_those_before_them_ended(data: MakeData, same: Same) -> None:
    settings = data(native=SMALL)
    through = list(train_steps(settings, Shapes(), patch_size=4, seed=2, num_steps=5, accumulation_steps=2))
    resumed = list(
        train_steps(settings, Shapes(), patch_size=4, seed=2, first_step=3, num_steps=2, accumulation_steps=2)
    )
    assert all(
        same(one, other)
        for early, late in zip(through[3:], resumed, strict=True)
        for one, other in zip(early, late, strict=True)
    )
    numbers = torch.cat([batch.sample_numbers_B for step in through for batch in step]).tolist()
    assert all(after == before + 1 for before, after in pairwise(numbers))


def test_nothing_is_cropped_but_flips_stay(data: MakeData) -> None:
    class Halves(Shapes):
        def read(self, index: int) -> Sample:
            picture = torch.zeros(3, 8, 16, dtype=torch.uint8)
            picture[:, :, :8] = 255
            return Sample(image=picture, identifier=str(index))

    settings = data(native=SMALL, augmentation=Augmentation(crop_scale=(0.1, 0.1)))
    ((batch,),) = train_steps(settings, Halves(), patch_size=4, seed=0, num_steps=1)
    grid = batch.images.grid
    left_B = batch.images.patches_BNF[:, 0].mean(1)
    right_B = batch.images.patches_BNF[:, grid.columns - 1].mean(1)
    assert ((left_B > 0) != (right_B > 0)).all()
    assert 0 < int((left_B > 0).sum()) < len(left_B)


def test_evaluation_keeps_aspect_ratios_where_it_is_asked_to(data: MakeData) -> None:
    (batch,) = evaluation_batches(data(), Shapes(), patch_size=4, batch_size=5, indices=range(5), native_area=20)
    grids = [(5, 4), (2, 8), (4, 4), (1, 18), (10, 2)]
    assert [(grid.rows, grid.columns) for grid in batch.images.grids] == grids
    assert batch.images.patches_BNF.shape == (5, 20, 48)
    assert batch.images.padding_is_image


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patches_per_step": 511}, r"must hold 8 images \(images_multiple_of\) of the largest area, 2\^6 patches"),
        ({"log2_area": (4, 3)}, "log2_area: must be two exponents 0 <= low <= high"),
        ({"images_multiple_of": 0}, "images_multiple_of: must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], match: str) -> None:
    settings = {"patches_per_step": 512, "log2_area": (3, 6), "images_multiple_of": 8}
    with pytest.raises(InvalidValue, match=match):
        NativeResolution(**{**settings, **changes})


def test_images_that_do_not_divide_over_processes_are_refused_at_once(data: MakeData) -> None:
    with pytest.raises(InvalidValue, match=r"native.images_multiple_of: .* over 3 ranks x 2 .* use a multiple of 6"):
        train_steps(data(native=SMALL), Shapes(), patch_size=4, seed=0, num_steps=1, world_size=3, accumulation_steps=2)


def test_data_processes_load_the_same_steps(data: MakeData, same: Same, folder: ImageFolder) -> None:
    alone, helped = (
        list(train_steps(settings, folder.open(), patch_size=4, seed=1, first_step=2, num_steps=2))
        for settings in (data(native=SMALL, num_workers=number) for number in (0, 1))
    )
    assert all(same(one, other) for (one,), (other,) in zip(alone, helped, strict=True))
    assert [batch.images.grids for (batch,) in alone] == [batch.images.grids for (batch,) in helped]
