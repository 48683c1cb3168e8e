"""What records share, and what each has of its own."""

from aimcore.report.comparing import shared_and_own


def test_nested_records_are_split_part_by_part() -> None:
    shared, own = shared_and_own({"a": {"lr": 1, "grid": {"x": 1, "y": 2}}, "b": {"lr": 1, "grid": {"x": 1, "y": 3}}})
    assert shared == {"lr": 1, "grid": {"x": 1}}
    assert own == {"a": {"grid": {"y": 2}}, "b": {"grid": {"y": 3}}}


def test_what_is_nested_deeper_is_shared_as_a_whole_or_not_at_all() -> None:
    one, other = ({"choices": {"trained": {"rate": rate, "decay": 0}, "pixels": {"rate": 1}}} for rate in (1, 2))
    shared, own = shared_and_own({"a": one, "b": other})
    assert shared == {"choices": {"pixels": {"rate": 1}}}
    assert own["b"] == {"choices": {"trained": {"rate": 2, "decay": 0}}}


def test_what_one_record_lacks_is_the_others_own() -> None:
    assert shared_and_own({"a": {"lr": 1}, "b": {}}) == ({}, {"a": {"lr": 1}, "b": {}})


def test_one_record_shares_everything() -> None:
    assert shared_and_own({"a": {"grid": {"x": 1}, "empty": {}}}) == ({"grid": {"x": 1}, "empty": {}}, {"a": {}})


def test_numbers_of_other_types_differ() -> None:
    shared, own = shared_and_own({"a": {"on": True}, "b": {"on": 1}})
    assert (shared, own) == ({}, {"a": {"on": True}, "b": {"on": 1}})
