"""The page of ``aimcore look`` in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aimcore import PatchGrid
from aimcore.encoders.looking import LookedAt
from aimcore.report.look_page import LookedImage, write_look_page

Measure = Callable[..., Any]
COLOURS = """
const colours = canvas => {
  // A copy that is read once: a browser warns of a canvas that is read again and again.
  const copy = page.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  context.drawImage(canvas, 0, 0);
  return [...context.getImageData(0, 0, copy.width, copy.height).data];
};
const similar = page.querySelector(".similarity"), pick = page.querySelector(".pick");
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of 2 x 3 patches, whose tokens are unit vectors; block 0 and head 1 of 12 see only the query itself."""
    attention = torch.rand(2, 12, 6, 6)
    attention[0, 1] = torch.eye(6)
    looked = LookedAt(PatchGrid(2, 3), torch.eye(6), (torch.eye(6),), (1,), tuple(range(6)), attention)
    path = tmp_path_factory.mktemp("look") / "look.html"
    image = LookedImage(
        "a-long-name-of-a-file/" * 5 + "<i>.png", torch.full((3, 28, 42), 90, dtype=torch.uint8), looked
    )
    write_look_page("an-encoder-of-a-long-name" * 5, "for a test", [image], path)
    return path


@pytest.mark.parametrize("width", [320, 1300])
def test_nothing_is_wider_than_the_screen_and_one_picture_is_not_shown_twice(
    width: int, page: Path, measure: Measure
) -> None:
    script = (
        "const root = page.documentElement; "
        "return [root.scrollWidth, root.clientWidth, page.querySelector('.source').offsetHeight];"
    )
    scroll_width, client_width, hidden = measure(page, script, width)
    assert scroll_width <= client_width
    assert hidden == 0


def test_the_chosen_patch_is_the_brightest_and_a_click_or_a_key_chooses_another(page: Path, measure: Measure) -> None:
    script = (
        COLOURS
        + """
    const map = page.querySelectorAll(".maps canvas")[1], seen = () => [colours(similar), colours(map)];
    const states = [seen()];
    const box = pick.getBoundingClientRect();
    pick.dispatchEvent(new view.MouseEvent("click", {clientX: box.left + 2, clientY: box.top + 2}));
    states.push(seen());
    pick.dispatchEvent(new view.KeyboardEvent("keydown", {key: "ArrowRight"}));
    states.push(seen());
    return states;
    """
    )
    yellow = [253, 231, 37, 255]
    for (similar, attention), chosen in zip(measure(page, script), (4, 0, 1), strict=True):
        for pixels in (similar, attention):
            brightest = [patch for patch in range(6) if pixels[4 * patch : 4 * patch + 4] == yellow]
            assert brightest == [chosen]
