"""Keyed randomness: pure, different where it must differ, and uniform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aimcore.contracts.randomness import keyed_bits, keyed_integers, keyed_uniform, seed_torch

NUMBERS = np.arange(100_000)


def test_bits_are_a_pure_function_pinned_forever() -> None:
    # A change here would silently change every recipe's run.
    assert keyed_bits(0, "prefix", [0, 1, 2]).tolist() == [
        10410311724313587622,
        977686696312494356,
        18251895094117335040,
    ]


def test_bits_of_a_number_do_not_depend_on_its_neighbours() -> None:
    assert keyed_bits(7, "crop", NUMBERS)[1234] == keyed_bits(7, "crop", 1234)


def test_seeds_and_purposes_are_unrelated() -> None:
    base = keyed_uniform(0, "prefix", NUMBERS)
    for other in (keyed_uniform(1, "prefix", NUMBERS), keyed_uniform(0, "crop", NUMBERS)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.02
        assert (base == other).sum() == 0


def test_consecutive_numbers_are_unrelated_and_uniform() -> None:
    values = keyed_uniform(0, "prefix", NUMBERS)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    # chi-square with 19 degrees of freedom: 43.8 is the 99.9 % point.
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8


def test_integers_cover_their_range_per_number_and_never_the_upper_bound() -> None:
    high = np.where(NUMBERS % 2, 4, 16)
    drawn = keyed_integers(0, "prefix", NUMBERS, 1, high)
    assert set(drawn[NUMBERS % 2 == 1]) == {1, 2, 3}
    assert set(drawn[NUMBERS % 2 == 0]) == set(range(1, 16))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="only without an accelerator")
def test_seeding_torch_keeps_nothing_for_devices_that_are_not_there() -> None:
    """``torch.manual_seed`` queues a call and its stack for each kind of device, at every call."""
    torch.manual_seed(7)
    expected, queued = torch.rand(3), len(torch.cuda._queued_calls)
    seed_torch(7)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == queued
