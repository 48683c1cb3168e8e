import weakref
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from aimcore import (
    AimcoreError,
    Augmentation,
    Batch,
    Data,
    InvalidValue,
    NativeResolution,
    OpenSource,
    PatchGrid,
    RandAugment,
    Sample,
    UnreadableSample,
    View,
)
from aimcore.contracts.errors import DataNotFound
from aimcore.contracts.randomness import index_of
from aimcore.data import evaluation_batches, train_steps
from aimcore_sources import ImageFolder

MakeData = Callable[..., Data]
Same = Callable[[Batch, Batch], bool]
VIEW = View(key="small", pixels_per_patch=2)


class Noise(OpenSource):
    """``size`` pictures of noise; the label is the index, where one is given."""

    def __init__(self, size: int, labelled: bool = True) -> None:
        self.size = size
        self.labelled = labelled
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> Sample:
        self.reads.append(index)
        pixels = np.random.default_rng(index).integers(0, 256, (3, 10, 12), dtype=np.uint8)
        label = index if self.labelled or index else None
        return Sample(image=torch.from_numpy(pixels), identifier=f"noise/{index}", label=label)


def test_a_step_is_a_list_of_micro_batches_of_packed_patches(data: MakeData) -> None:
    (step,) = train_steps(data(), Noise(20), patch_size=4, views=[VIEW], seed=3, num_steps=1, accumulation_steps=2)
    batch = step[1]
    assert len(step) == 2
    assert batch.images.patches_BNF.shape == (4, 4, 48)
    assert batch.images.grids == (PatchGrid(2, 2),) * 4
    assert batch.views["small"].shape == (4, 3, 4, 4)
    assert batch.seed == 3


def test_numbers_labels_and_identifiers_belong_together(data: MakeData) -> None:
    steps = list(train_steps(data(), Noise(20), patch_size=4, seed=3, num_steps=3))
    batch = steps[2][0]
    indices = index_of(np.arange(16, 24), 20, seed=3).tolist()
    assert batch.sample_numbers_B.tolist() == list(range(16, 24))
    assert batch.labels_B is not None
    assert batch.labels_B.tolist() == indices
    assert batch.extras["identifiers"] == tuple(f"noise/{index}" for index in indices)


def test_labels_are_absent_when_one_sample_has_none(data: MakeData) -> None:
    source = Noise(8, labelled=False)
    with_it, without = list(evaluation_batches(data(), source, patch_size=4, batch_size=4))
    assert with_it.labels_B is None
    assert without.labels_B is not None


def test_every_epoch_reads_every_image_once(data: MakeData) -> None:
    steps = train_steps(data(), Noise(20), patch_size=4, seed=0, num_steps=10)
    names = Counter(name for step in steps for batch in step for name in batch.extras["identifiers"])
    assert names == {f"noise/{index}": 4 for index in range(20)}


def test_crops_differ_between_epochs(data: MakeData) -> None:
    first, second = train_steps(data(batch_size=2), Noise(2), patch_size=4, seed=0, num_steps=2)
    by_name = [dict(zip(b.extras["identifiers"], b.images.patches_BNF, strict=True)) for b in (first[0], second[0])]
    assert not torch.equal(by_name[0]["noise/1"], by_name[1]["noise/1"])


@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(2, 1), (1, 4), (2, 2)])
def test_ranks_and_micro_batches_share_out_the_same_samples(
    data: MakeData, world_size: int, accumulation_steps: int
) -> None:
    def pixels(world_size: int, accumulation_steps: int) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        for rank in range(world_size):
            steps = train_steps(
                data(), Noise(20), patch_size=4, seed=0, num_steps=2, rank=rank, world_size=world_size,
                accumulation_steps=accumulation_steps,
            )  # fmt: skip
            for batch in (batch for step in steps for batch in step):
                found |= zip(batch.sample_numbers_B.tolist(), batch.images.patches_BNF, strict=True)
        return found

    alone, shared = pixels(1, 1), pixels(world_size, accumulation_steps)
    assert alone.keys() == shared.keys() == set(range(16))
    assert all(torch.equal(alone[number], shared[number]) for number in alone)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_goes_on_as_if_never_stopped(
    data: MakeData, folder: ImageFolder, same: Same, num_workers: int
) -> None:
    augmentation = Augmentation(color_jitter=(0.3, 0.3, 0.3, 0.0), rand_augment=RandAugment())
    settings = data(num_workers=num_workers, augmentation=augmentation)
    source = folder.open()
    unbroken = data(augmentation=augmentation)
    through = [b for s in train_steps(unbroken, source, patch_size=4, views=[VIEW], seed=5, num_steps=5) for b in s]
    steps = train_steps(settings, source, patch_size=4, views=[VIEW], seed=5, first_step=2, num_steps=3)
    resumed = [batch for step in steps for batch in step]
    assert len(resumed) == 3
    assert all(same(one, other) for one, other in zip(through[2:], resumed, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_torchs_generator_and_threads_alone(
    data: MakeData, folder: ImageFolder, num_workers: int
) -> None:
    generator, num_threads = torch.get_rng_state(), torch.get_num_threads()
    list(train_steps(data(num_workers=num_workers), folder.open(), patch_size=4, seed=0, num_steps=2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == num_threads


def test_a_view_of_the_crops_own_size_is_the_crop(data: MakeData) -> None:
    views = [View(key="same", pixels_per_patch=4, normalize=True), View(key="unit", pixels_per_patch=4)]
    ((batch,),) = train_steps(data(), Noise(20), patch_size=4, views=views, seed=0, num_steps=1)
    settings = data()
    back = batch.views["unit"] - torch.tensor(settings.mean)[:, None, None]
    assert torch.equal(batch.views["same"], batch.images.pixels_BCHW)
    assert torch.equal(back / torch.tensor(settings.std)[:, None, None], batch.images.pixels_BCHW)


def test_a_view_that_is_not_normalised_lies_between_zero_and_one(data: MakeData) -> None:
    ((batch,),) = train_steps(data(), Noise(20), patch_size=4, views=[VIEW], seed=0, num_steps=1)
    assert batch.views["small"].min() >= 0
    assert batch.views["small"].max() <= 1
    assert batch.images.pixels_BCHW.min() < 0


def test_evaluation_goes_by_index_and_the_last_batch_is_smaller(data: MakeData) -> None:
    batches = list(evaluation_batches(data(), Noise(10), patch_size=4, batch_size=4))
    assert [batch.sample_numbers_B.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches[2].extras["identifiers"] == ("noise/8", "noise/9")


def test_evaluation_shares_chosen_indices_among_ranks(data: MakeData) -> None:
    chosen = [9, 3, 5, 1, 7]
    first, second = (
        [batch.sample_numbers_B.tolist() for batch in evaluation_batches(
            data(), Noise(10), patch_size=4, batch_size=2, rank=rank, world_size=2, indices=chosen
        )]
        for rank in (0, 1)
    )  # fmt: skip
    assert first == [[9, 5], [7]]
    assert second == [[3, 1]]


def test_evaluation_is_the_same_in_processes(data: MakeData, folder: ImageFolder, same: Same) -> None:
    source = folder.open()
    one, two = (
        list(evaluation_batches(data(num_workers=num_workers), source, patch_size=4, views=[VIEW], batch_size=8))
        for num_workers in (0, 2)
    )
    assert len(one) == 3
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_a_batch_that_does_not_divide_is_refused_at_once(data: MakeData) -> None:
    with pytest.raises(InvalidValue, match="8 samples per step do not divide over 3 ranks"):
        train_steps(data(), Noise(10), patch_size=4, seed=0, num_steps=1, world_size=3)


def test_an_empty_source_is_refused_at_once(data: MakeData) -> None:
    with pytest.raises(DataNotFound, match="Noise has no samples"):
        train_steps(data(), Noise(0), patch_size=4, seed=0, num_steps=1)
    with pytest.raises(AimcoreError, match="Noise has no samples"):
        evaluation_batches(data(), Noise(0), patch_size=4, batch_size=1)


class Tracked(Noise):
    """Counts the decoded images that are still in memory when the next one is read. Every fifth is unreadable."""

    def __init__(self) -> None:
        super().__init__(20)
        self.images: list[weakref.ref[torch.Tensor]] = []
        self.alive: list[int] = []

    def read(self, index: int) -> Sample:
        self.alive.append(sum(image() is not None for image in self.images))
        sample = super().read(index)
        self.images.append(weakref.ref(sample.image))
        if index % 5 == 4:
            raise UnreadableSample(sample.identifier, "found damaged after it was decoded")
        return sample


@pytest.mark.parametrize("native", [None, NativeResolution(patches_per_step=128, log2_area=(3.0, 4.0))])
def test_an_image_is_rendered_and_released_before_the_next_is_read(
    data: MakeData, native: NativeResolution | None
) -> None:
    source = Tracked()
    settings = data(native=native)
    for steps in train_steps(settings, source, patch_size=4, seed=0, num_steps=3):
        assert len(steps[0].sample_numbers_B) >= 8
    area = None if native is None else 12
    (batch,) = evaluation_batches(settings, source, patch_size=4, batch_size=20, native_area=area)
    assert len(batch.sample_numbers_B) == 16
    assert len(source.alive) >= 44
    assert max(source.alive) == 0
