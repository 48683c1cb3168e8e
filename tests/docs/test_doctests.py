"""Examples in docstrings give the output that they show, and doctest finds all of them."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMPT = re.compile(r"^ *>>> ", flags=re.MULTILINE)


def modules() -> dict[str, int]:
    """Every module with examples, and how many prompts its file has."""
    found = {}
    for top, packages in ((ROOT, ["aimcore"]), (ROOT / "plugins", ["."])):
        for path in sorted(path for package in packages for path in (top / package).rglob("*.py")):
            prompts = len(PROMPT.findall(path.read_text(encoding="utf-8")))
            if prompts:
                parts = path.relative_to(top).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = prompts
    return found


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_the_output_that_they_show(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(verbose=False)
    output: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=output.append)
    assert "".join(output) == ""
    assert runner.tries == MODULES[name], "doctest does not find some example, such as one below a field"


def test_there_are_examples_in_the_core_and_in_plugins() -> None:
    assert {name.partition(".")[0] for name in MODULES} > {"aimcore"}
