"""The laws of the house that a machine can keep."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import run_to_end

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "aimcore").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
PLUGIN_PACKAGES = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "ChainMap"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return run_to_end([sys.executable, *command], cwd=ROOT)


def relative(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_imports_keep_their_contracts():
    done = run("-c", "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports())")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    done = run("-m", "ruff", "check", "--output-format=concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_files_are_formatted():
    done = run("-m", "ruff", "format", "--check", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_right():
    done = run("-m", "mypy")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["aimcore", "aimcore.run", "aimcore.registry.static_listing", "aimcore.running.run_listing"]
)
def test_importing_loads_neither_torch_nor_deepspeed(module):
    done = run("-c", f"import sys, {module}; print(sorted({{'torch', 'deepspeed'}} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("plugins", {"torch", "numpy", "aimcore_trunks"}),
        ("describe", {"deepspeed", "matplotlib", "scipy", "torchvision", "zarr", "torch._dynamo", "sentencepiece"}),
    ],
)
def test_a_command_loads_only_what_it_shows(command, heavy):
    code = f"import sys, aimcore.run as r; r.command(['{command}']); print(sorted({heavy} & set(sys.modules)))"
    done = run("-c", code)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_the_core_never_names_a_plugin_package():
    pattern = re.compile("|".join(rf"\b{name}\b" for name in PLUGIN_PACKAGES))
    naming = [path for path in CORE if pattern.search(path.read_text(encoding="utf-8"))]
    assert relative(naming) == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("pluggy", ("aimcore/registry/plugins.py", "aimcore/registry/hookspecs.py")),
        ("deepspeed", ("aimcore/engine/",)),
        ("fsspec", ("aimcore/io/locations.py",)),
    ],
)
def test_a_package_is_imported_in_its_room_only(package, rooms):
    importing = [path for path in CORE + PLUGINS if package in imported(parsed(path))]
    assert [name for name in relative(importing) if not name.startswith(rooms)] == []


def test_tests_start_processes_in_one_place_which_ends_them():
    starting = re.compile(r"\bsubprocess\.(Popen|run|call|check_\w+)\(")
    tests = sorted((ROOT / "tests").rglob("*.py"))
    found = [path for path in tests if starting.search(path.read_text(encoding="utf-8"))]
    assert relative(found) == ["tests/processes.py"]


def test_consoles_are_made_in_one_module():
    """Elsewhere names from files would be markup, and terminals would obey their control characters."""
    making = [path for path in CORE + PLUGINS if "Console" in called(parsed(path)) | bases(parsed(path))]
    assert relative(making) == ["aimcore/io/terminal.py"]


def test_modules_remember_installed_plugins_bundled_files_and_the_group_of_processes_alone():
    # They stay as they are while a process runs, and the arrays are read-only. The group ends with torch's own.
    cached = [f"{path.stem}.{name}" for path in CORE + PLUGINS for name in module_caches(parsed(path))]
    expected = ["distributed._patient_group", "plugins.installed", "bundled._split", "emoji._tiles", "emoji._pictures"]
    assert cached == expected


@pytest.mark.parametrize("path", CORE + PLUGINS, ids=relative(CORE + PLUGINS))
def test_no_module_has_mutable_state(path):
    assert list(mutable_state(parsed(path))) == []


@pytest.mark.parametrize(
    "source",
    [
        "seen = []",
        "seen: dict[str, int] = {}",
        "seen = {n: 0 for n in 'ab'}",
        "if True:\n    seen = set()",
        "import collections\nseen = collections.deque()",
        "SEEN = 0\ndef f():\n    global SEEN\n    SEEN = 1",
        "SEEN = []\ndef f():\n    SEEN.append(1)",
        "SEEN = {}\ndef f(k):\n    SEEN[k] = 1",
    ],
)
def test_mutable_state_is_recognised(source):
    assert list(mutable_state(ast.parse(source))) != []


@pytest.mark.parametrize("source", ["NAMES = {'a': 1}", "__all__ = ['a']", "count = (1, 2)", "def f():\n    seen = []"])
def test_constants_are_no_mutable_state(source):
    assert list(mutable_state(ast.parse(source))) == []


@pytest.mark.parametrize("decorator", ["cache", "functools.cache", "lru_cache(maxsize=None)", "functools.lru_cache"])
def test_caches_are_recognised(decorator):
    assert list(module_caches(ast.parse(f"@{decorator}\ndef found(): ..."))) == ["found"]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(module: ast.Module) -> set[str]:
    """Top packages that a module imports anywhere."""
    plain = {alias.name for node in ast.walk(module) if isinstance(node, ast.Import) for alias in node.names}
    names = {node.module or "" for node in ast.walk(module) if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | names}


def called(module: ast.Module) -> set[str]:
    """Plain names that are called anywhere."""
    return {node.func.id for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def bases(module: ast.Module) -> set[str]:
    """Plain names that classes derive from."""
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    return {base.id for node in classes for base in node.bases if isinstance(base, ast.Name)}


def top_level(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, classes and functions taken as one."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for block in ("body", "orelse", "finalbody"):
                yield from top_level(getattr(node, block, []))


def mutable_state(module: ast.Module) -> Iterator[str]:
    """What a module keeps that can change: containers that are no constants, constants that functions change."""
    containers = set()
    for node in top_level(module.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            containers |= {target.id for target in targets if isinstance(target, ast.Name)}
    yield from (name for name in sorted(containers) if not name.isupper() and name != "__all__")
    for node in ast.walk(module):
        if isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}"
        changed = changed_name(node)
        if changed in containers:
            yield f"line {node.lineno} changes {changed}"


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in MUTABLE_CALLS
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def changed_name(node: ast.AST) -> str | None:
    """The name whose item is set or deleted, or that a changing method is called on."""
    changing = {"append", "extend", "insert", "update", "setdefault", "add", "pop", "popitem", "remove", "clear"}
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return getattr(node.value, "id", None)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in changing:
        return getattr(node.func.value, "id", None)
    return None


def module_caches(module: ast.Module) -> Iterator[str]:
    """Functions of a module that remember what they returned."""
    for node in top_level(module.body):
        if isinstance(node, ast.FunctionDef):
            text = [ast.unparse(decorator).partition("(")[0].rpartition(".")[2] for decorator in node.decorator_list]
            if {"cache", "lru_cache"} & set(text):
                yield node.name
