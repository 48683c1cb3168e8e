"""The site: no page is lost, every public room and built-in plugin has its page, and what is shown can be found."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from types import ModuleType

import pytest
from docs.page import DOCS
from import_graph import PUBLIC_TO_PLUGINS, modules_in

from aimcore.contracts.roles import ROLES
from docs import contracts

ROOT = DOCS.parent
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NAVIGATION = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
DIRECTIVES = re.findall(
    r"^::: ([\w.]+)$", "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("api/*.md")), flags=re.MULTILINE
)
WHOLE = {"evaluation", "testing"}
"""Public folders whose package documents all that is public."""
PUBLIC = sorted(
    name
    for name in modules_in(ROOT / "aimcore")
    if name.count(".") == 2 and name.split(".")[1] in PUBLIC_TO_PLUGINS - WHOLE
)


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(NAVIGATION) == PAGES


@pytest.mark.parametrize("name", [*PUBLIC, "aimcore.experiment", *(f"aimcore.{folder}" for folder in sorted(WHOLE))])
def test_every_public_module_has_its_page(name: str) -> None:
    assert name in DIRECTIVES


def test_every_built_in_plugin_has_its_page() -> None:
    packages = {path.name for path in (ROOT / "plugins").glob("aimcore_*")}
    assert {name for name in DIRECTIVES if name.startswith("aimcore_") and "." not in name} == packages


def test_the_page_of_contracts_is_up_to_date() -> None:
    assert contracts.PAGE.read_text(encoding="utf-8") == contracts.page(), (
        "run PYTHONPATH=tests python -m docs.contracts"
    )


def test_every_member_of_a_contract_says_what_it_means() -> None:
    assert [line for line in contracts.page().splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


def test_files_that_pages_name_exist() -> None:
    files = [
        path.as_posix()
        for folder in ("aimcore", "plugins", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    text = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)
    named = sorted(set(re.findall(r"`((?:[\w-]+/)+\w+\.py)`", text)))
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)] == []


def test_no_page_fetches_anything_from_outside() -> None:
    texts = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    assert [page for page, text in zip(PAGES, texts, strict=True) if re.search(r"!\[[^]]*\]\(http|<script", text)] == []
    assert "  font: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_drawing_shows_every_role_and_room() -> None:
    drawing = ElementTree.parse(DOCS / "images" / "architecture.svg")
    words = set(re.findall(r"\w+", " ".join(drawing.getroot().itertext())))
    rooms = {path.parent.name for path in (ROOT / "aimcore").glob("*/__init__.py")}
    assert {role.role for role in ROLES} | rooms <= words


def test_the_picture_of_a_report_is_light() -> None:
    assert (DOCS / "images" / "report.png").stat().st_size <= 400_000


def test_contributing_adds_an_ordering_that_passes_its_test() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    variant, test = re.findall(r"^```python.*?\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "contributed"}
    exec(compile(variant + test, "CONTRIBUTING.md", "exec"), names)
    (run,) = [value for name, value in names.items() if name.startswith("test_")]
    assert callable(run)
    run()


@pytest.fixture
def docstrings() -> ModuleType:
    pytest.importorskip("griffe", reason="pip install 'aimcore[docs]'")
    spec = importlib.util.spec_from_file_location("documented_docstrings", DOCS / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_api_pages_show_examples_as_code_and_name_a_components_paper(docstrings: ModuleType) -> None:
    import griffe

    package = griffe.load(
        "aimcore_orderings", search_paths=[ROOT / "plugins"], extensions=griffe.load_extensions(docstrings.Docstrings)
    )
    docstring = package["spiral.Spiral"].docstring
    assert docstring is not None
    example = "```pycon\n>>> Spiral().permutation(PatchGrid(3, 3)).tolist()\n[4, 1, 2, 5, 8, 7, 6, 3, 0]\n```"
    paper = "Named `spiral` in recipes. Paper: arXiv:2401.08541, Table 3b and Figure 8."
    assert docstring.value.endswith(f"{example}\n\n{paper}")


def test_roles_of_sphinx_become_links(docstrings: ModuleType) -> None:
    linked = docstrings._ROLE.sub(docstrings._link, "see :func:`~aimcore.contracts.batches.f`")
    assert linked == 'see <autoref identifier="aimcore.contracts.batches.f" optional><code>f</code></autoref>'
