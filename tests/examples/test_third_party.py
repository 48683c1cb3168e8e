"""A stranger's distribution: built and installed from outside the tree, used, recorded, and missed when it is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import python_path, run_to_end

SOURCE = Path(__file__).parents[2] / "examples" / "third_party" / "aimcore-hilbert"
STUDY = """
from aimcore import Data, Experiment, Study
from aimcore_heads import LinearHead
from aimcore_hilbert import Hilbert
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    source = BundledFashionMNIST()
    experiment = Experiment(
        name="curve",
        data=Data(train=source, validation=BundledFashionMNIST(split="test"), batch_size=32, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=4),
        objective=NextPatch(ordering=Hilbert(), head=LinearHead()),
        num_steps=2,
    )
    return Study(name="outside", experiments=[experiment])
"""


class Installed:
    """Runs commands as somebody who has installed the distribution, or has not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / "aimcore-hilbert"
        self.site = folder / "site"
        shutil.copytree(SOURCE, self.copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        options = ["--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet"]
        done = self.run("pip", "install", *options, "--target", str(self.site), str(self.copy))
        assert done.returncode == 0, done.stderr

    def run(self, module: str, *arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
        paths = python_path(self.site) if installed else {}
        environment = os.environ | paths | {"COLUMNS": "200"}
        command = [sys.executable, "-m", module, *arguments]
        return run_to_end(command, cwd=self.folder, env=environment, fork=module != "pip")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The console script ``aimcore``."""
        code = f"import sys; from aimcore.run import command; sys.exit(command({list(arguments)!r}))"
        environment = os.environ | python_path(self.site)
        return run_to_end([sys.executable, "-c", code], cwd=self.folder, env=environment, fork=True)


@pytest.fixture(scope="module")
def hilbert(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("outside"))


@pytest.fixture(scope="module")
def recipe(hilbert: Installed) -> Path:
    """The record of a run that used it."""
    (hilbert.folder / "study.py").write_text(STUDY, encoding="utf-8")
    done = hilbert.run("aimcore.run", "study.py", "--out", "out")
    assert done.returncode == 0, done.stderr
    return hilbert.folder / "out" / "curve" / "recipe.json"


def test_it_is_installed_apart_from_the_tree(hilbert: Installed) -> None:
    assert (hilbert.site / "aimcore_hilbert" / "curve.py").exists()
    assert not (SOURCE / "src" / "aimcore_hilbert.egg-info").exists()


def test_it_is_listed_with_its_distribution(hilbert: Installed) -> None:
    done = hilbert.command("plugins")
    (row,) = [line.split() for line in done.stdout.splitlines() if "hilbert" in line]
    assert row == ["hilbert", "aimcore-hilbert", "0.1.0", "orderings/hilbert"]


def test_its_own_tests_pass(hilbert: Installed) -> None:
    done = hilbert.run("pytest", "-q", "-p", "no:cacheprovider", str(hilbert.copy / "tests"))
    assert done.returncode == 0, done.stdout


def test_it_conforms_in_the_terminal(hilbert: Installed) -> None:
    done = hilbert.command("check", "plugin", "aimcore-hilbert")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "orderings/hilbert" in done.stdout


def test_a_recipe_names_what_it_was_made_of(recipe: Path) -> None:
    written = json.loads(recipe.read_text(encoding="utf-8"))
    assert written["experiment"]["objective"]["ordering"] == {"name": "hilbert"}
    assert written["plugins"]["aimcore-hilbert"] == {"version": "0.1.0", "components": ["orderings/hilbert"]}


def test_the_study_that_uses_it_is_finished(recipe: Path) -> None:
    summary = json.loads((recipe.parents[1] / "summary.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in summary["experiments"]] == ["finished"]


def test_where_it_is_missing_the_error_says_what_to_install(hilbert: Installed, recipe: Path) -> None:
    done = hilbert.run("aimcore.run", str(recipe), "--out", "again", installed=False)
    assert done.returncode == 2
    assert "objective.ordering: no ordering is called 'hilbert'" in done.stderr
    assert "the recipe has it from aimcore-hilbert 0.1.0, which is not installed: run pip install aimcore-hilbert" in (
        done.stderr
    )
