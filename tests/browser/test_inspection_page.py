"""The page of ``aimcore data inspect`` in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aimcore import OpenSource, Sample, UnreadableSample
from aimcore.report.inspection_page import write_inspection_page
from aimcore.running.source_inspection import inspect_source

Measure = Callable[..., Any]
LONG = "a-class-whose-name-somebody-made-by-joining-everything-" * 3


class Hostile(OpenSource):
    """Names that are hard to place; samples 0 and 1 are equal, 2 is broken, 3 is wide."""

    class_names = ("<b>bold</b>", LONG)

    def __len__(self) -> int:
        return 8

    def read(self, index: int) -> Sample:
        if index == 2:
            raise UnreadableSample(LONG, "<script>alert(1)</script>" * 20)
        generator = torch.Generator().manual_seed(max(index, 1))
        size = (10, 4000) if index == 3 else (20, 30)
        image = torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
        return Sample(image, f"{LONG}/{index}<i>", captions={LONG: ("words " * 99,)}, label=index % 2)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspection") / "page.html"
    write_inspection_page(inspect_source(Hostile()), Hostile(), f"https://data/{LONG}", path)
    return path


@pytest.mark.parametrize("width", [320, 1300])
def test_nothing_is_wider_than_the_screen_and_every_picture_is_shown(width: int, page: Path, measure: Measure) -> None:
    script = (
        "const root = page.documentElement, pictures = [...page.images]; "
        "return [root.scrollWidth, root.clientWidth, pictures.length, pictures.every(one => one.naturalWidth > 0)];"
    )
    scroll_width, client_width, number, are_shown = measure(page, script, width)
    assert scroll_width <= client_width
    # 4 extreme sizes, a group of two, and 7 samples that can be read.
    assert (number, are_shown) == (4 + 2 + 7, True)


def test_links_lead_to_sections_and_tables_that_scroll_take_the_focus(page: Path, measure: Measure) -> None:
    script = """
    const links = [...page.querySelectorAll("nav a")].map(one => page.querySelector(one.getAttribute("href")) !== null);
    const boxes = [...page.querySelectorAll(".box")].map(one => one.tabIndex === 0 && one.ariaLabel.length > 0);
    return [links, boxes, page.querySelectorAll("main script, main b").length];
    """
    links, boxes, foreign = measure(page, script)
    assert links == [True] * 5
    assert boxes == [True] * 4
    assert foreign == 0
