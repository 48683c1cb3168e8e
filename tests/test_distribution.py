"""The wheel and the source distribution are complete, and what they install runs outside of the source tree."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from archives import unpack
from processes import run_to_end

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ["aimcore", *sorted(f"plugins/{path.name}" for path in (ROOT / "plugins").glob("aimcore_*"))]
TOP = ["pyproject.toml", "mkdocs.yml", *(f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING"))]
IGNORED = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
LICENSES = ["LICENSE", "THIRD_PARTY_NOTICES.md"]
STUDY = """
import aimcore, aimcore_orderings
from aimcore import Data, Experiment, Study
from aimcore_heads import LinearHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledEmoji, BundledFashionMNIST
from aimcore_trunks import ViT

def study(scale):
    print(aimcore.__file__, aimcore_orderings.__file__, len(BundledEmoji(split='all').open()), scale)
    source = BundledFashionMNIST()
    experiment = Experiment(
        name="outside",
        data=Data(train=source, validation=source, batch_size=4, image_size=28),
        trunk=ViT(width=16, depth=1, num_heads=2, patch_size=14),
        objective=NextPatch(head=LinearHead()),
        num_steps=2,
    )
    return Study(name="installed", experiments=[experiment])
"""


def files_below(folder: Path) -> set[str]:
    """Every file in ``folder`` that ``.gitignore`` does not exclude."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(path) for path in found if not any(fnmatch(part, ignored) for part in path.parts for ignored in IGNORED)
    }


def ended_well(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from the tree; and the wheel, built from the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder, "-t"]
    ended_well(run_to_end([*build, "sdist"], cwd=ROOT))
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        unpack(archive, folder / "source")
    ended_well(run_to_end([*build, "wheel"], cwd=folder / "source" / packed.name.removesuffix(".tar.gz")))
    return folder


@pytest.fixture(scope="module")
def source(dist: Path) -> Path:
    """The unpacked source distribution."""
    (unpacked,) = (dist / "source").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def site(dist: Path) -> Path:
    """A folder that the wheel is installed into."""
    (wheel,) = dist.glob("*.whl")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--target", dist / "site"]
    ended_well(run_to_end([sys.executable, "-m", "pip", "install", *options, wheel], cwd=dist))
    return dist / "site"


@pytest.mark.parametrize("folder", ["aimcore", "plugins", "tests", "docs", "examples", "benchmarks"])
def test_the_source_distribution_is_complete(folder: str, source: Path) -> None:
    """The tests are part of it, so that they can be run from it."""
    assert files_below(source / folder) == files_below(ROOT / folder)


def test_the_source_distribution_has_the_files_of_the_top_folder(source: Path) -> None:
    assert [name for name in (*TOP, *LICENSES) if not (source / name).is_file()] == []


def test_the_wheel_has_every_package_and_nothing_else(site: Path) -> None:
    """Templates, pictures and ``py.typed`` included."""
    packages = {Path(name).name: ROOT / name for name in PACKAGES}
    assert {name: files_below(site / name) for name in packages} == {
        name: files_below(folder) for name, folder in packages.items()
    }
    others = {path.name for path in site.iterdir()} - packages.keys()
    assert others == {"bin", f"aimcore-{PROJECT['version']}.dist-info"}


def test_the_wheel_states_its_version_and_licences(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = f"aimcore-{PROJECT['version']}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        licenses = {name.removeprefix(f"{info}/licenses/") for name in archive.namelist() if "/licenses/" in name}
    assert (metadata["Version"], metadata["License-Expression"]) == (PROJECT["version"], PROJECT["license"])
    notices = {
        f"plugins/aimcore_sources/assets/{name}" for name in files_below(ROOT / "plugins/aimcore_sources/assets")
    }
    assert licenses == {*LICENSES, *(name for name in notices if name.endswith((".txt", "LICENSES.md")))}
    assert set(metadata.get_all("License-File", [])) == licenses


def test_every_bundled_file_has_a_notice() -> None:
    notice = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    bundled = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()]
    own = (".py", ".pyc", ".typed", ".html", ".css")
    assert [path.name for path in bundled if path.suffix not in own and f"`{path.name}`" not in notice] == []


def test_a_study_outside_of_the_tree_uses_the_installed_code(site: Path, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    command = [sys.executable, "-m", "aimcore.run", "study.py", "--scale", "smoke", "--dry-run"]
    printed = ended_well(run_to_end(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}))
    first, *table = printed.splitlines()
    assert first == f"{site}/aimcore/__init__.py {site}/aimcore_orderings/__init__.py 7562 smoke"
    assert "outside" in "\n".join(table)


def test_the_installed_command_knows_its_version_and_plugins(site: Path, tmp_path: Path) -> None:
    def aimcore(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
        return ended_well(run_to_end([site / "bin" / "aimcore", *arguments], cwd=tmp_path, env=environment))

    assert aimcore("--version") == f"aimcore {PROJECT['version']}\n"
    listed = [line.split()[:3] for line in aimcore("plugins").splitlines() if " aimcore " in line]
    names = {row[0]: row[1:] for row in listed}
    assert names["orderings"] == ["aimcore", PROJECT["version"]]
    assert names.keys() >= PROJECT["entry-points"]["aimcore"].keys() - {"tensorboard", "timm", "transformers", "wandb"}
