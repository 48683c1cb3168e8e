from collections.abc import Callable
from pathlib import Path

import pytest

from aimcore import Batch, Data
from aimcore.data import evaluation_batches, train_steps
from aimcore.errors import TooManyUnreadable
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
        match=r"5 images .* data.max_unreadable = 4 allows. The first: class_0/00.png \(UnidentifiedImageError: .*"
        r"class_0/02.png .*class_0/04.png .*raise data.max_unreadable",
    ):
        list(evaluation_batches(settings, folder.open(), patch_size=4, batch_size=2))


def test_as_many_as_allowed_do_not_stop_the_run(data: MakeData, folder: ImageFolder) -> None:
    damage(folder, range(4))
    batches = list(evaluation_batches(data(max_unreadable=4), folder.open(), patch_size=4, batch_size=8))
    assert len(names(batches)) == 16


def test_a_source_of_nothing_but_damaged_images_stops_training(data: MakeData, folder: ImageFolder) -> None:
    damage(folder, range(20))
    with pytest.raises(TooManyUnreadable, match="64 images drawn in a row could not be read"):
        list(train_steps(data(), folder.open(), patch_size=4, seed=0, num_steps=1))
