"""The glossary: each term once, names that exist, and one legend of shape suffixes."""

from __future__ import annotations

import re
from collections import Counter

from docs.page import DOCS

import aimcore
from aimcore import contracts
from aimcore.contracts.roles import ROLES

TEXT = (DOCS / "glossary.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ", 1) for line in TEXT.splitlines() if re.match(r"\| (?!term|letter)[^-]", line)]
LEGEND = "; ".join(re.findall(r"Shape suffixes.*?:\n(.*?)\. A file", contracts.__doc__ or "", flags=re.DOTALL))


def test_each_term_is_defined_once() -> None:
    assert [term for term, count in Counter(term for term, _ in ROWS).items() if count > 1] == []


def test_classes_and_their_attributes_exist() -> None:
    named = re.findall(r"`([A-Z]\w+)(?:\.(\w+))?[(`]", TEXT)
    unknown = [(name, member) for name, member in named if not _exists(name, member)]
    assert ("Trunk", "capabilities") in named
    assert unknown == []


def test_every_role_is_named() -> None:
    (meaning,) = [meaning for term, meaning in ROWS if term == "role"]
    named = set(re.findall(r"\w+", meaning.partition(":")[2]))
    assert {role.role.removesuffix("s") for role in ROLES} == named


def test_contracts_and_glossary_have_one_legend() -> None:
    letters = [term for term, _ in ROWS if re.fullmatch("[A-Z]", term)]
    assert re.findall(r"(?:^|, |\n)([A-Z]) ", LEGEND) == letters


def _exists(name: str, member: str) -> bool:
    found = getattr(aimcore, name, None)
    return found is not None and (not member or member in dir(found) + list(getattr(found, "__annotations__", ())))
