import numpy as np
import pytest

from aimcore.data.splits import hold_out


def test_every_class_gives_its_share() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    kept, held_out = hold_out(labels, range(160), share=0.1)
    assert np.bincount(np.asarray(labels)[held_out]).tolist() == [10, 5, 1]
    assert sorted([*kept, *held_out]) == list(range(160))


def test_small_classes_give_one_and_keep_one() -> None:
    kept, held_out = hold_out([0, 0, 1, 2, 2, 2], range(6), share=0.1)
    assert [label for label in (0, 1, 2) if label in np.asarray([0, 0, 1, 2, 2, 2])[held_out]] == [0, 2]
    assert len(kept) == 4


def test_a_large_share_still_keeps_one_of_each_class() -> None:
    kept, held_out = hold_out([0, 0, 1, 1], range(4), share=0.99)
    assert (len(kept), len(held_out)) == (2, 2)


def test_the_choice_is_independent_of_order() -> None:
    names = [f"image_{number}" for number in range(200)]
    labels = [number % 3 for number in range(200)]
    backwards = hold_out(labels[::-1], names[::-1])[1]
    forwards = hold_out(labels, names)[1]
    assert {names[position] for position in forwards} == {names[::-1][position] for position in backwards}


def test_the_choice_is_not_the_first_samples() -> None:
    held_out = hold_out([0] * 1000, range(1000))[1]
    # The mean of 100 positions drawn from 0..999 is 500 with a standard deviation of 27.
    assert abs(held_out.mean() - 499.5) < 110
    assert held_out[:3].tolist() != [0, 1, 2]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="3 labels for 2 identifiers"):
        hold_out([0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        hold_out([0, 1], [0, 1], share=1.0)
