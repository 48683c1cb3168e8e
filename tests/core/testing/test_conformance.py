"""Everything that is installed conforms; the cases are found, not listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aimcore import Component, Source
from aimcore.plugins import installed
from aimcore.testing import checks_for, installed_components, parametrize_with_checks
from aimcore.testing.checks import Check
from aimcore_sources import FashionMNIST, ImageFolder
from aimcore_sources.fashion_mnist import CLASS_NAMES


@parametrize_with_checks(installed_components())
def test_every_installed_component_conforms(component: Component, check: Check) -> None:
    check(component)


def test_every_installed_component_is_among_the_cases_or_needs_data() -> None:
    checked = {(type(component).role, type(component).name) for component in installed_components()}
    every = {(role, name) for role, registry in installed().registries.items() for name in registry.names()}
    assert every - checked == {("sources", name) for name in NEEDS_DATA}


def _image_folder(folder: Path) -> Source:
    for number in range(6):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), (40 * number, 0, 0)).save(path)
    return ImageFolder(url=str(folder))


def _fashion_mnist(folder: Path) -> Source:
    pixels = np.broadcast_to(np.arange(10_000, dtype=np.uint32)[:, None, None] % 256, (10_000, 28, 28))
    for name, array in (("images-idx3", pixels), ("labels-idx1", np.arange(10_000) % len(CLASS_NAMES))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return FashionMNIST(root=str(folder), split="test")


NEEDS_DATA = {"image_folder": _image_folder, "fashion_mnist": _fashion_mnist}
"""Sources without examples, and what makes one with data in a folder."""


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("made", NEEDS_DATA.values(), ids=NEEDS_DATA, indirect=True)
@pytest.mark.parametrize("check", checks_for(FashionMNIST()), ids=lambda check: check.__name__)
def test_sources_that_need_data_conform_when_they_have_it(made: Source, check: Callable[[Source], None]) -> None:
    check(made)
