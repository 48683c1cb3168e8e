"""docs/plugins.md: every role is there, and all that can be copied from it works."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from docs.page import DOCS, Block, blocks_of, headings_of
from import_graph import PUBLIC_TO_PLUGINS
from processes import python_path, run_to_end

from aimcore.contracts.roles import ROLES
from aimcore.testing import outcomes_of

PAGE = "plugins.md"
BLOCKS = blocks_of(PAGE)
FIRST = "A first plugin in ten minutes"
SNIPPETS = [block for block in BLOCKS if block.language == "python" and not block.title]
PLUGINS = [block for block in SNIPPETS if "@hookimpl" in block.code]
TESTS = [block for block in SNIPPETS if "\ndef test_" in block.code]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Block], ModuleType]:
    def load(block: Block) -> ModuleType:
        name = f"documented_{BLOCKS.index(block)}"
        path = tmp_path / f"{name}.py"
        path.write_text(block.code, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)  # other processes, which the kit starts, import it too
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def hooks(module: ModuleType) -> dict[str, list[type]]:
    """What the hooks of a module supply, by role."""
    return {name: value() for name, value in vars(module).items() if hasattr(value, "aimcore_impl")}


def test_every_role_is_documented() -> None:
    roles = {role.role for role in ROLES}
    assert roles == {title for title in headings_of(PAGE) if title in roles}


@pytest.mark.parametrize("role", [role.role for role in ROLES])
def test_every_hook_is_shown_below_its_role(role: str) -> None:
    shown = [block for block in PLUGINS if block.section == f"`{role}`"]
    assert any(f"@hookimpl\ndef {role}():" in block.code for block in shown)


@pytest.mark.parametrize("block", PLUGINS, ids=lambda block: block.section.strip("`"))
def test_every_documented_plugin_conforms(block: Block, imported: Callable[[Block], ModuleType]) -> None:
    supplied = hooks(imported(block))
    components = [cls for classes in supplied.values() for cls in classes]
    faults = [
        (component, outcome)
        for cls in components
        for component in cls.examples()
        for outcome in outcomes_of(component)
        if outcome.fault or outcome.skipped
    ]
    assert components
    assert faults == []


def test_every_snippet_is_tried() -> None:
    assert [block.section for block in SNIPPETS if block not in PLUGINS and block not in TESTS] == []


def test_documented_tests_pass(tmp_path: Path) -> None:
    for number, block in enumerate(TESTS):
        (tmp_path / f"test_documented_{number}.py").write_text(block.code, encoding="utf-8")
        for module, name in re.findall(r"^from (aimcore_raw\w+) import (\w+)$", block.code, flags=re.MULTILINE):
            (plugin,) = [one for one in PLUGINS if f"class {name}(Source)" in one.code]
            (tmp_path / f"{module}.py").write_text(plugin.code, encoding="utf-8")
    done = run(tmp_path, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)])
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first plugin, written and installed as the page says."""
    folder = tmp_path_factory.mktemp("first")
    for block in BLOCKS:
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
    options = ["--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet", "--target", "site"]
    done = run(folder, [sys.executable, "-m", "pip", "install", *options, "."])
    assert done.returncode == 0, done.stderr
    return folder


LINES = [line for block in BLOCKS if block.language == "console" for line in block.code.splitlines()]
COMMANDS = [shlex.split(line) for line in LINES if line.startswith(("aimcore ", "python -m aimcore.run "))]
ONE_AFTER_ANOTHER = """
import json, sys
from aimcore import run
for words in json.loads(sys.argv[1]):
    print(">", *words, flush=True)
    status = run.command(words[1:]) if words[0] == "aimcore" else run.main(words[3:])
    if status:
        sys.exit(f"{words}: exit status {status}")
"""


def test_the_page_says_how_to_install_it_and_what_to_do_then() -> None:
    others = [line for line in LINES if shlex.split(line) not in COMMANDS]
    assert others == ["pip install --editable . pytest", "pytest", "AIMCORE_BLOCK=diagonal aimcore plugins"]
    assert [block.section for block in BLOCKS if block.title] == [FIRST] * 4


def test_every_documented_command_works_on_the_first_plugin(first: Path) -> None:
    done = run(first, [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(COMMANDS)])
    assert done.returncode == 0, done.stdout + done.stderr
    said = {part.splitlines()[0]: part for part in done.stdout.split("> ")[1:]}
    assert "orderings/diagonal" in said["aimcore plugins"]
    assert "diagonal: causal" in said["aimcore check causality study.py"]


def test_the_first_plugins_tests_pass(first: Path) -> None:
    done = run(first, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"])
    assert done.returncode == 0, done.stdout
    assert "16 passed" in done.stdout


def test_the_first_plugin_can_be_left_out(first: Path) -> None:
    code = "import sys; from aimcore.run import command; sys.exit(command(['plugins']))"
    done = run(first, [sys.executable, "-c", code], AIMCORE_BLOCK="diagonal")
    assert "blocked by AIMCORE_BLOCK: plugin 'diagonal' of aimcore-diagonal 0.1.0" in done.stdout
    assert "orderings/diagonal" not in done.stdout


def run(folder: Path, words: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | python_path(folder / "site") | {"COLUMNS": "200", **settings}
    return run_to_end(words, cwd=folder, env=environment, fork="pip" not in words)


def test_the_errors_are_those_that_are_raised() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "aimcore").rglob("*.py"))
    table = (DOCS / PAGE).read_text(encoding="utf-8").partition("## Errors you may meet")[2]
    phrases = re.findall(r"^\| `(.+?)` \|", table, flags=re.MULTILINE)
    assert len(phrases) > 5
    assert [phrase for phrase in phrases if phrase not in source] == []


def test_public_rooms_are_there_and_the_page_names_no_others() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    (line,) = re.findall(r"the package itself, (.+?);", page, flags=re.DOTALL)
    assert set(re.findall(r"`aimcore\.(.+?)`", line)) == PUBLIC_TO_PLUGINS
    rooms = [f"aimcore.{folder}" for folder in PUBLIC_TO_PLUGINS]
    command = "aimcore.run"
    assert set(re.findall(r"\baimcore\.[a-z_]+\b", page)) - {*rooms, command} == set()
