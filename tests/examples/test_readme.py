"""The README: what it shows must work as it is printed, and what it lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aimcore import Component, Experiment, Ordering, PatchGrid
from aimcore.registry.plugins import installed
from aimcore.report import ExperimentSummary
from aimcore.testing import outcomes_of

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def code_below(heading: str) -> str:
    """The Python block of a section."""
    _, _, section = TEXT.partition(f"\n## {heading}\n")
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    return str(code)


def names_of(heading: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code_below(heading), str(README), "exec"), names)
    return names


def test_the_two_commands_are_there_to_be_copied() -> None:
    assert "pip install -e . && python -m aimcore.run examples/few_labels.py" in TEXT
    assert "pip install -e '.[test]' && pytest -n 2 " in TEXT


def test_the_first_experiment_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = names_of("A first experiment")
    entry = names["summary"]
    assert isinstance(entry, ExperimentSummary)
    assert isinstance(names["experiment"], Experiment)
    assert entry.status == "finished"
    assert (tmp_path / "runs" / "first" / "recipe.json").exists()


def test_the_first_plugin_supplies_an_ordering_that_conforms() -> None:
    (diagonal,) = names_of("A first plugin")["orderings"]()  # type: ignore[operator]
    assert [outcome for outcome in outcomes_of(diagonal()) if outcome.fault] == []


def test_the_first_plugin_reads_along_the_diagonals() -> None:
    diagonal = names_of("A first plugin")["Diagonal"]
    assert isinstance(diagonal, type)
    assert issubclass(diagonal, Ordering)
    assert diagonal().permutation(PatchGrid(2, 3)).tolist() == [0, 1, 3, 2, 4, 5]


def test_no_component_is_listed_that_does_not_exist() -> None:
    extras = {"trackers/tensorboard", "trackers/wandb"}
    assert listed() - extras - set(built_in()) == set()


def test_every_component_from_a_paper_is_listed() -> None:
    from_papers = {name for name, component in built_in().items() if component.paper}
    assert from_papers - listed() == set(), "README.md says below 'What there is' where each is from"


def listed() -> set[str]:
    """What the table of the README names, by role and name."""
    _, _, section = TEXT.partition("\n## What there is\n")
    rows = [line.split("|")[1:3] for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    names, role = set(), ""
    for first, second in rows:
        role = first.strip() or role
        names |= {f"{role}s/{name}" for name in re.findall(r"`([a-z_\d]+)`", second)}
    return names


def built_in() -> dict[str, type[Component]]:
    """What this distribution supplies, by role and name."""
    return {
        f"{role}/{name}": component
        for role, registry in installed().registries.items()
        for name, component in registry.items()
        if registry.supplier_of(name).distribution == "aimcore"
    }


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_into_the_repository_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert links
