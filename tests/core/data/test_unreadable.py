import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import pytest
import torch

from aimcore import Batch, Data, InvalidValue, OpenSource, Sample, UnreadableSample
from aimcore.contracts.errors import TooManyUnreadable
from aimcore.data import evaluation_batches, train_steps
from aimcore_sources import ImageFolder

MakeData = Callable[..., Data]


def damage(folder: ImageFolder, numbers: range) -> None:
    for number in numbers:
        (Path(folder.url) / f"class_{number % 2}" / f"{number:02}.png").write_bytes(b"damaged")


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.extras["identifiers"]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_leaves_them_out_and_names_each_once(
    data: MakeData, folder: ImageFolder, warnings: list[str], num_workers: int
) -> None:
    damage(folder, range(4, 8))
    # Sorted by name: even numbers first, then odd ones; 04 and 06 make up the second batch of two.
    batches = list(evaluation_batches(data(num_workers=num_workers), folder.open(), patch_size=4, batch_size=2))
    assert [batch.sample_numbers_B.tolist() for batch in batches][:3] == [[0, 1], [4, 5], [6, 7]]
    assert len(names(batches)) == 16
    assert [line.split(":")[0] for line in warnings] == [
        "cannot read class_0/04.png", "cannot read class_0/06.png", "cannot read class_1/05.png",
        "cannot read class_1/07.png",
    ]  # fmt: skip


def test_training_replaces_them_the_same_way_everywhere(
    data: MakeData, folder: ImageFolder, warnings: list[str], same: Callable[[Batch, Batch], bool]
) -> None:
    damage(folder, range(10))
    source = folder.open()
    here, there = (
        [b for s in train_steps(data(num_workers=n), source, patch_size=4, seed=1, num_steps=5) for b in s]
        for n in (0, 2)
    )
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    assert {len(batch.sample_numbers_B) for batch in here} == {8}
    assert not any(name.endswith(f"/0{digit}.png") for name in names(here) for digit in range(10))
    # Two epochs meet each of the ten once or more: one warning for each, in each of the two runs.
    assert len(warnings) == 20


def test_the_other_samples_stay_as_they_were(data: MakeData, folder: ImageFolder) -> None:
    (before,) = train_steps(data(batch_size=20), folder.open(), patch_size=4, seed=1, num_steps=1)
    damage(folder, range(1))
    (after,) = train_steps(data(batch_size=20), folder.open(), patch_size=4, seed=1, num_steps=1)
    changed = [one for one, other in zip(names(before), names(after), strict=True) if one != other]
    assert changed == ["class_0/00.png"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_stop_the_run_and_the_first_are_named(data: MakeData, folder: ImageFolder, num_workers: int) -> None:
    damage(folder, range(0, 10, 2))
    settings = data(max_unreadable=4, num_workers=num_workers)
    with pytest.raises(
        TooManyUnreadable,
        match=r"5 of 6 images read could not be read, more than data.max_unreadable = 4 and "
        r"data.max_unreadable_share = 0.01 allow. The first: class_0/00.png \(it is damaged, or none of .*"
        r"class_0/02.png .*class_0/04.png .*raise the limits",
    ):
        list(evaluation_batches(settings, folder.open(), patch_size=4, batch_size=2))


def test_as_many_as_allowed_do_not_stop_the_run(data: MakeData, folder: ImageFolder) -> None:
    damage(folder, range(4))
    batches = list(evaluation_batches(data(max_unreadable=4), folder.open(), patch_size=4, batch_size=8))
    assert len(names(batches)) == 16


class Sparse(OpenSource):
    """Black pictures, of which every ``period``-th cannot be read, from ``first`` on."""

    def __init__(self, size: int, period: int, first: int = 0) -> None:
        self.size, self.period, self.first = size, period, first

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> Sample:
        if index >= self.first and index % self.period == 0:
            raise UnreadableSample(f"{index}", "broken")
        return Sample(image=torch.zeros(3, 8, 8, dtype=torch.uint8), identifier=f"{index}")


def test_more_than_the_number_do_not_stop_the_run_while_their_share_is_small(data: MakeData) -> None:
    source = Sparse(400, period=20)
    settings = data(max_unreadable=4, max_unreadable_share=0.05)
    assert len(names(list(evaluation_batches(settings, source, patch_size=4, batch_size=20)))) == 380
    with pytest.raises(TooManyUnreadable, match=r"5 of 100 images read .* data.max_unreadable_share = 0.04 allow"):
        list(evaluation_batches(attrs.evolve(settings, max_unreadable_share=0.04), source, patch_size=4, batch_size=20))


def test_a_share_that_grows_later_stops_the_run_where_it_passes_the_limit(data: MakeData) -> None:
    settings = data(max_unreadable=2, max_unreadable_share=0.1)
    # Every second one from 80 on: 10 of the first 100 are as many as allowed; of the first 120, 13 are one too many.
    batches = evaluation_batches(settings, Sparse(400, period=2, first=80), patch_size=4, batch_size=20)
    assert [len(next(batches).sample_numbers_B) for _ in range(5)] == [20, 20, 20, 20, 10]
    with pytest.raises(TooManyUnreadable, match="13 of 120 images read"):
        next(batches)


def test_the_share_is_a_share(data: MakeData) -> None:
    with pytest.raises(InvalidValue, match=r"max_unreadable_share: must .*1\.5"):
        data(max_unreadable_share=1.5)


def test_beyond_the_number_they_are_counted_and_no_longer_named(data: MakeData, warnings: list[str]) -> None:
    settings = data(max_unreadable=2, max_unreadable_share=1.0)
    list(evaluation_batches(settings, Sparse(40, period=4), patch_size=4, batch_size=8))
    assert [line.split(":")[0] for line in warnings] == ["cannot read 0", "cannot read 4", "cannot read 8"]
    assert warnings[-1].endswith("3 unreadable: others are counted, and not named")


def test_a_replacement_comes_from_the_same_part_of_a_mixture(data: MakeData) -> None:
    class Halves(Sparse):
        """Ten pictures, of which few are readable, and many others."""

        def part_of(self, index: int) -> range:
            return range(10) if index < 10 else range(10, len(self))

        def indices_of(self, sample_numbers: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
            return sample_numbers % 10

        def read(self, index: int) -> Sample:
            if index < 8:
                raise UnreadableSample(f"{index}", "broken")
            return super().read(index)

    steps = train_steps(data(batch_size=20), Halves(1000, 2000, 1), patch_size=4, seed=0, num_steps=5)
    assert set(names([batch for step in steps for batch in step])) == {"8", "9"}


def test_a_source_of_nothing_but_damaged_images_stops_training(data: MakeData, folder: ImageFolder) -> None:
    damage(folder, range(20))
    with pytest.raises(TooManyUnreadable, match="64 images drawn in a row could not be read"):
        list(train_steps(data(), folder.open(), patch_size=4, seed=0, num_steps=1))


def test_pillows_warnings_of_odd_metadata_are_not_shown(data: MakeData, tmp_path: Path) -> None:
    # ImageWidth is given twice, where one number belongs.
    entries = b"".join(
        struct.pack("<HHII", tag, 3, 2 if tag == 256 else 1, value)
        for tag, value in {256: 0x1_0001, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}.items()
    )
    (tmp_path / "odd.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        source = ImageFolder(url=str(tmp_path)).open()
        assert len(list(evaluation_batches(data(), source, patch_size=4, batch_size=1))) == 1
    assert not [str(one.message) for one in shown]
