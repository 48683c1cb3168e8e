"""Published methods as distributions of their own: installed from outside the tree, their own tests pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import python_path, run_to_end

FOLDER = Path(__file__).parents[2] / "examples" / "third_party"
METHODS = ("aimcore-convnet", "aimcore-ijepa", "aimcore-nepa", "aimcore-random-orders")


class Installed:
    """Runs commands as somebody who has installed the distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site"
        for name in METHODS:
            shutil.copytree(FOLDER / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        options = ["--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet"]
        done = self.run(
            "-m", "pip", "install", *options, "--target", str(self.site), *(str(folder / n) for n in METHODS)
        )
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | python_path(self.site) | {"COLUMNS": "200", "AIMCORE_BLOCK": ""}
        command = [sys.executable, *arguments]
        return run_to_end(command, cwd=self.folder, env=environment, fork="pip" not in arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("methods"))


def test_they_are_listed_with_their_distributions(installed: Installed) -> None:
    done = installed.run("-c", "import sys; from aimcore.run import command; sys.exit(command(['plugins']))")
    rows = [line.split()[1:] for line in done.stdout.splitlines() if any(name in line for name in METHODS)]
    assert rows == [
        ["aimcore-convnet", "0.1.0", "trunks/convnet"],
        ["aimcore-ijepa", "0.1.0", "objectives/i_jepa"],
        ["aimcore-nepa", "0.1.0", "objectives/next_embedding"],
        ["aimcore-random-orders", "0.1.0", "orderings/random_orders,", "trunks/told_vit"],
    ]


def test_their_own_tests_pass(installed: Installed) -> None:
    folders = [str(installed.folder / name / "tests") for name in METHODS]
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *folders)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", METHODS)
def test_the_core_knows_nothing_of_them(name: str) -> None:
    package = name.replace("-", "_")
    read = [path for top in ("aimcore", "plugins") for path in (FOLDER.parents[1] / top).rglob("*.py")]
    assert [path.name for path in read if package in path.read_text(encoding="utf-8")] == []
