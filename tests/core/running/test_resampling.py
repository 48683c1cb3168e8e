"""Intervals by resampling and by Student's t, against independent values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aimcore.contracts.errors import InvalidValue
from aimcore.running.correctness import Correctness
from aimcore.running.resampling import bootstrap_interval, student_interval


def test_the_interval_of_an_accuracy_has_the_quantiles_of_the_binomial_distribution() -> None:
    right = [1] * 70 + [0] * 30
    expected = stats.binom(100, 0.7).ppf([0.025, 0.975]) / 100
    assert bootstrap_interval(right) == (pytest.approx(expected[0], abs=0.011), pytest.approx(expected[1], abs=0.011))


def test_counting_draws_equals_drawing_images_one_by_one() -> None:
    values = np.random.default_rng(1).choice([-1.0, -1 / 3, 0.0, 1 / 3, 1.0], size=200, p=[0.05, 0.1, 0.5, 0.2, 0.15])
    drawn = np.random.default_rng(2).integers(200, size=(4000, 200))
    plain = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    assert bootstrap_interval(values) == (pytest.approx(plain[0], abs=0.01), pytest.approx(plain[1], abs=0.01))


def test_resamples_are_seeded() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_a_bootstrap_interval_contains_the_true_accuracy_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    studies = [bootstrap_interval(generator.random(200) < 0.8, num_resamples=500, seed=study) for study in range(300)]
    share = np.mean([low <= 0.8 <= high for low, high in studies])
    assert 0.91 <= share <= 0.98


def test_equal_values_give_a_point_and_none_is_an_error() -> None:
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="at least two values, got 1"):
        student_interval([0.1])


def test_students_interval_is_that_of_scipy() -> None:
    values = [0.1, 0.3, 0.25, 0.2]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student_interval(values) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("num", [1, 7, 8, 9, 1000])
def test_one_bit_per_image_is_kept_and_read_again(num: int) -> None:
    right_n = np.random.default_rng(num).random(num) < 0.5
    record = Correctness.of(right_n, "digest")
    assert np.array_equal(record.right_n(), right_n)
    assert len(record.bits) <= 4 * -(-num // 24)


@pytest.mark.parametrize(
    ("bits", "message"), [("oA==", "must have 2 bytes for 9 images, got 1"), ("o\u00e4", "must be base64")]
)
def test_damaged_bits_are_refused(bits: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Correctness(num=9, images="digest", bits=bits)
