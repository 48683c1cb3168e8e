import numpy as np
import pytest

from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.randomness import index_of
from aimcore.data.sampling import micro_batch_numbers, micro_batch_size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 100, 1000, 4096, 4097])
def test_every_epoch_shows_every_image_once(size: int) -> None:
    for epoch in (0, 1, 5):
        numbers = np.arange(epoch * size, (epoch + 1) * size)
        assert sorted(index_of(numbers, size, seed=3)) == list(range(size))


def test_an_index_depends_on_its_number_alone() -> None:
    numbers = np.arange(950, 2050)
    together = index_of(numbers, 1000, seed=0)
    assert [int(index_of(number, 1000, seed=0)) for number in numbers[::100]] == together[::100].tolist()
    assert index_of(numbers.reshape(11, 100), 1000, seed=0).tolist() == together.reshape(11, 100).tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = index_of(np.arange(2000), 1000, seed=0).reshape(2, 1000)
    other = index_of(np.arange(1000), 1000, seed=1)
    # Two random orders of 1000 images agree in 1 place on average, in 10 places almost never.
    assert (first == second).sum() < 10
    assert (first == other).sum() < 10


@pytest.mark.parametrize("size", [4, 10, 64, 100])
def test_each_image_is_equally_likely_at_each_place(size: int) -> None:
    num_epochs = 200 * size
    orders = index_of(np.arange(num_epochs * size), size, seed=11).reshape(num_epochs, size)
    for place in (0, size // 2, size - 1):
        counts = np.bincount(orders[:, place], minlength=size)
        chi_square = ((counts - 200) ** 2 / 200).sum()
        # Mean size - 1, standard deviation sqrt(2 (size - 1)): four of them are passed once in 10,000 draws or so.
        assert chi_square < (size - 1) + 4 * np.sqrt(2 * (size - 1)), (place, chi_square)


def test_all_orders_of_four_images_are_equally_likely() -> None:
    orders = index_of(np.arange(24_000 * 4), 4, seed=2).reshape(24_000, 4)
    counts = np.unique(orders @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    # All 24 orders of four images occur, 1000 times each on average.
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 23 + 4 * np.sqrt(46)


@pytest.mark.parametrize(("world_size", "accumulation_steps"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2), (4, 3)])
def test_ranks_and_micro_batches_share_out_the_same_step(world_size: int, accumulation_steps: int) -> None:
    shares = [
        micro_batch_numbers(
            7, micro, batch_size=24, rank=rank, world_size=world_size, accumulation_steps=accumulation_steps
        )
        for micro in range(accumulation_steps)
        for rank in range(world_size)
    ]
    assert np.concatenate(shares).tolist() == list(range(7 * 24, 8 * 24))
    assert {len(share) for share in shares} == {24 // world_size // accumulation_steps}


def test_a_micro_batch_has_the_numbers_of_the_formula() -> None:
    numbers = micro_batch_numbers(2, 1, batch_size=12, rank=1, world_size=3, accumulation_steps=2)
    # m = 12 / (3 * 2) = 2; first = 2 * 12 + (1 * 3 + 1) * 2 = 32
    assert numbers.tolist() == [32, 33]


def test_a_batch_that_does_not_divide_names_sizes_that_do() -> None:
    with pytest.raises(InvalidValue, match=r"batch_size: 64 .* 3 ranks x 1 accumulation steps: use 63 or 66"):
        micro_batch_size(64, 3, 1)
    with pytest.raises(InvalidValue, match=r"use 4$"):
        micro_batch_size(3, 2, 2)
