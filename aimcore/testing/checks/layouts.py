"""Checks of layouts of files of weights."""

from __future__ import annotations

from collections import Counter

import torch

from aimcore.contracts.layouts import FileLayout
from aimcore.contracts.tensor_maps import INDEX
from aimcore.testing.checks import Check
from aimcore.testing.requirements import require


def check_it_says_what_it_is(layout: FileLayout) -> None:
    """The title is a text of one line: tables and messages show it."""
    title = layout.title
    require(isinstance(title, str) and title.isprintable() and bool(title.strip()), f"title is {title!r}")


def check_no_two_rules_share_a_name(layout: FileLayout) -> None:
    """Every tensor of a file, and every tensor of the model, is in one rule only."""
    rules = layout.table.maps
    theirs, ours = Counter(rule.theirs for rule in rules), Counter(name for rule in rules for name in rule.ours)
    twice = [name for counted in (theirs, ours) for name, number in counted.items() if number > 1]
    require(not twice, f"several rules have {twice[:3]}: a tensor would be read or written twice")


def check_a_number_of_a_block_is_in_both_names(layout: FileLayout) -> None:
    """A rule has the number of a block in the file's name and in all of the model's names, or in none; once in each."""
    for rule in layout.table.maps:
        counts = {name.count(INDEX) for name in (rule.theirs, *rule.ours)}
        require(counts <= {0} or counts == {1}, f"the rule of {rule.theirs!r} loses or invents the number of a block")


def check_every_rule_can_be_reversed(layout: FileLayout) -> None:
    """What a rule reads, it writes again as it was, with one tensor for each of the model's names."""
    for rule in layout.table.maps:
        example = rule.form.example()
        problem = rule.form.problem_with(example.shape)
        require(problem is None, f"the rule of {rule.theirs!r} refuses its own example: {problem}")
        values = rule.form.read(example)
        number = len(values)
        require(
            number == len(rule.ours), f"the rule of {rule.theirs!r} has {len(rule.ours)} names for {number} tensors"
        )
        back = rule.form.write(values)
        same = back.shape == example.shape and torch.equal(back, example)
        require(same, f"the rule of {rule.theirs!r} does not write what it has read")


CHECKS: tuple[Check, ...] = (
    check_it_says_what_it_is,
    check_no_two_rules_share_a_name,
    check_a_number_of_a_block_is_in_both_names,
    check_every_rule_can_be_reversed,
)
