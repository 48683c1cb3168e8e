"""Modules that the pages name exist: a module that is moved is moved in the pages too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = sorted(path.name for path in (ROOT / "aimcore").iterdir() if path.is_dir() and not path.name.startswith("_"))
NAMED = re.compile(rf"`((?:aimcore/|plugins/|tests/|core/|(?:{'|'.join(FOLDERS)})/)[\w/]+\.py)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_names_exist(page: Path) -> None:
    named = set(NAMED.findall(page.read_text(encoding="utf-8")))
    places = (ROOT, ROOT / "aimcore", ROOT / "tests")
    assert sorted(name for name in named if not any((place / name).is_file() for place in places)) == []
