"""The whole contract of an ordering in three lines, and what this one promises besides."""

from itertools import pairwise

import pytest
from aimcore_hilbert import Hilbert, hilbert

from aimcore.testing import parametrize_with_checks


@parametrize_with_checks(Hilbert.examples())
def test_it_conforms(component, check):
    check(component)


@pytest.mark.parametrize("rows", range(1, 18))
def test_each_step_goes_to_a_neighbour(rows):
    for columns in range(1, 18):
        for (row, column), (next_row, next_column) in pairwise(hilbert(rows, columns)):
            assert abs(row - next_row) + abs(column - next_column) == 1


def test_a_square_of_four_is_hilberts_own_curve():
    assert list(hilbert(4, 4)) == [
        (0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (3, 0), (3, 1), (2, 1),
        (2, 2), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (0, 2), (0, 3),
    ]  # fmt: skip
