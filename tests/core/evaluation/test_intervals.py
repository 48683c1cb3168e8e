"""Wilson's interval by hand."""

import pytest

from aimcore.evaluation import wilson_interval


def test_the_interval_of_8_of_10_is_that_of_the_textbooks() -> None:
    # z = 1.959964: centre (0.8 + 0.192073) / 1.384146 = 0.716740, half-width 0.226577.
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_nothing_right_still_leaves_room_above_and_never_goes_below_zero() -> None:
    # With no successes the upper end is z^2 / (n + z^2) = 3.841459 / 13.841459.
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)


def test_everything_right_mirrors_nothing_right() -> None:
    assert wilson_interval(10, 10) == pytest.approx((1 - 0.2775328, 1.0), abs=1e-6)


@pytest.mark.parametrize(("correct", "samples"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_proportion_is_refused(correct: int, samples: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        wilson_interval(correct, samples)
