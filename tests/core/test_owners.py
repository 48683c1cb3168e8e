"""One module owns each fact of a run's processes, and one writes files: no other module takes a way of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE, PLUGINS = ROOT / "aimcore", ROOT / "plugins"

COMMUNICATES = {"aimcore/engine/distributed.py", "plugins/aimcore_objectives/gathering.py"}
"""Modules that may import torch.distributed: the owner, and gathers that gradients pass through."""
WRITES = {
    ("aimcore/io/atomic_files.py", "open"): "the owner",
    ("aimcore/io/atomic_files.py", "write_bytes"): "the owner",
    ("aimcore/io/atomic_files.py", "os.replace"): "the owner",
    (
        "aimcore/engine/checkpoints.py",
        "save_file",
    ): "safetensors writes weights into a folder that is published whole",
    ("aimcore/running/trunk_export.py", "save_file"): "to the temporary file of atomic_files.replacing",
    ("aimcore/io/fetched_files.py", "NamedTemporaryFile"): "copies of remote files, which are removed after use",
    ("aimcore/io/safetensors_folders.py", "save_file"): "into a folder that is published whole",
    ("aimcore/engine/checkpoints.py", "rename"): "a checkpoint is marked as incomplete before it is removed",
    ("aimcore/engine/checkpoint_copies.py", "write_bytes"): "into a folder that is published whole",
    ("aimcore/engine/checkpoint_copies.py", "open"): "into a folder that is published whole",
    ("aimcore/running/filter_parts.py", "savez"): "into memory",
    ("aimcore/running/caption_run.py", "open"): "the temporary file of atomic_files.replacing",
    ("aimcore/running/converting.py", "os.replace"): "moves complete results next to their place, and only then",
    ("plugins/aimcore_sources/folder_writing.py", "write_bytes"): "images into a folder that is published whole",
    ("plugins/aimcore_sources/folder_writing.py", "write_text"): "to the temporary file of atomic_files.replacing",
    ("plugins/aimcore_sources/folder_writing.py", "open"): "the temporary file of atomic_files.replacing",
    ("plugins/aimcore_sources/webdataset_writing.py", "open"): "the temporary file of atomic_files.replacing",
    ("plugins/aimcore_sources/zarr_joining.py", "open"): "the temporary file of atomic_files.replacing",
    ("plugins/aimcore_sources/zarr_joining.py", "save"): "to the temporary file of atomic_files.replacing",
    ("aimcore/report/style.py", "savefig"): "into memory, and to the temporary file of atomic_files.replacing",
    ("aimcore/report/sample_files.py", "savez_compressed"): "into memory",
    ("aimcore/cli/run.py", "open"): "/dev/null",
    ("aimcore/engine/peak_memory.py", "write_text"): "/proc/self/clear_refs",
    ("aimcore/recipe/recipe_files.py", "open_location"): "URLs, which have no temporary names",
    ("aimcore/encoders/embedding_table.py", "open_location"): "URLs, which have no temporary names",
    ("aimcore/testing/module_state.py", "write_text"): "scratch files between the kit's processes",
    ("aimcore/testing/checks/optimizers.py", "save"): "into memory",
    ("aimcore/testing/module_state.py", "save"): "scratch files between the kit's processes",
}
"""Calls that write files, with the reason. Zarr and tensorboardX write files of their own."""
OF_THE_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((*CORE.rglob("*.py"), *PLUGINS.rglob("*.py"))):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports_torch_distributed(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        whole = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
        if any(f"{name}.".startswith("torch.distributed.") for name in whole):
            return True
    return False


def launcher_variables(tree: ast.Module) -> list[str]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in OF_THE_LAUNCHER]


def test_processes_communicate_through_one_module() -> None:
    assert {name for name, tree in modules() if imports_torch_distributed(tree)} == COMMUNICATES


def test_the_variables_of_launchers_are_read_by_one_module() -> None:
    assert {name for name, tree in modules() if launcher_variables(tree)} == {"aimcore/io/launcher.py"}


@pytest.mark.parametrize(
    "text",
    ["import torch.distributed as dist", "from torch import distributed", "from torch.distributed import FileStore"],
)
def test_an_import_of_torch_distributed_is_seen_however_it_is_written(text: str) -> None:
    assert imports_torch_distributed(ast.parse(text))
    assert not imports_torch_distributed(ast.parse(text.replace("distributed", "optim")))


WRITERS = {
    "write_text", "write_bytes", "rename", "save_file", "savez", "savez_compressed", "savefig", "tofile",
    "NamedTemporaryFile",
}  # fmt: skip


def writing_calls(tree: ast.Module) -> Iterator[str]:
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        last = name.rpartition(".")[2]
        if last in ("open", "open_location", "fdopen"):
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            texts = [one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            if any(0 < len(text) <= 3 and set(text) & set("wax+") and set(text) <= set("rwaxbt+") for text in texts):
                yield last
        elif name in ("os.replace", "os.rename", "shutil.move", "shutil.copy", "shutil.copyfile"):
            yield name
        elif last in WRITERS or name in ("torch.save", "np.save", "json.dump"):
            yield last


def test_local_files_are_written_by_one_module() -> None:
    trees = [(name, tree) for name, tree in modules() if "/assets/" not in name]  # scripts that are not installed
    assert {(name, call) for name, tree in trees for call in writing_calls(tree)} == set(WRITES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path.open('ab')", ["open"]),
        ("open(path, mode='w', encoding='utf-8')", ["open"]),
        ("open(path, 'rb'); path.open(); source.open()", []),
        ("path.write_text(text); os.replace(a, b)", ["write_text", "os.replace"]),
        ("text.replace(a, b)", []),
        ("torch.save(state, path); recipe.save(path, made)", ["save"]),
    ],
)
def test_calls_that_write_are_seen(text: str, found: list[str]) -> None:
    assert list(writing_calls(ast.parse(text))) == found
