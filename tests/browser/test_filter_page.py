"""The page of ``aimcore data filter`` in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filter_pools import captioned_folder, encoded, noise
from PIL import ImageOps
from small_encoders import TOWERS, run_of

from aimcore.run import command

Measure = Callable[..., Any]
LONG = "a-class-whose-name-somebody-made-by-joining-everything-" * 3


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sample is an evaluation image, one a mirrored one, one a copy, one broken; two of four have low scores."""
    folder = tmp_path_factory.mktemp("filter")
    files = {
        f"{LONG}<i>.png": encoded(noise(1)), "b.png": encoded(noise(51)), "c.png": encoded(noise(1)),
        "d.png": encoded(noise(2)), "e.png": encoded(noise(3)), "<b>f.png": b"broken", "g.png": encoded(noise(4)),
        "h.png": encoded(ImageOps.mirror(noise(51))),
    }  # fmt: skip
    captioned_folder(folder / "pool", files)
    captioned_folder(folder / "eval", {f"{LONG}.png": encoded(noise(51))})
    towers = str(run_of(folder / "towers", objective=TOWERS))
    options = [
        "--against", str(folder / "eval"), "--deduplicate", "--embeddings-by", towers, "--scores-by", towers, "--keep",
        "0.5", "--dry-run",
    ]  # fmt: skip
    words = ["data", "filter", str(folder / "pool")]
    assert command([*words, str(folder / "first-*.tar"), *options, "--similarity", "1"]) == 0
    nearest = json.loads((folder / "first.tar.filter.json").read_text())["similarities"]["nearest_kept"]
    assert command([*words, str(folder / "out-*.tar"), *options, "--similarity", str(nearest[0]["similarity"])]) == 0
    return folder / "out.tar.filter.html"


@pytest.mark.parametrize("width", [320, 1300])
def test_nothing_is_wider_than_the_screen_and_every_picture_is_shown(width: int, page: Path, measure: Measure) -> None:
    script = """
    const root = page.documentElement, pictures = [...page.images];
    const sections = [...page.querySelectorAll("main > section")], are_shown = pictures.every(one => one.naturalWidth);
    const counts = Object.fromEntries(sections.map(one => [one.id, one.querySelectorAll("img").length]));
    return [root.scrollWidth, root.clientWidth, counts, are_shown];
    """
    scroll_width, client_width, counts, are_shown = measure(page, script, width)
    assert scroll_width <= client_width
    assert are_shown
    record = json.loads(page.with_name("out.tar.filter.json").read_text())
    assert record["num_removed"] == {"broken": 1, "evaluation": 2, "duplicate": 1, "low score": 2}
    assert counts == {
        "counts": 0, "hash": 2, "embedding": 2, "nearest": 4, "duplicates": 2, "best": 2, "lowest-kept": 2,
        "highest-removed": 2, "worst": 2, "broken": 0,
    }  # fmt: skip


def test_what_can_no_longer_be_read_is_left_out_of_the_page(page: Path) -> None:
    folder = page.parent
    before = page.read_text()
    (folder / "eval").rename(folder / "elsewhere")
    page.unlink()
    options = json.loads((folder / "out.tar.filter.json").read_text())["steps"]
    words = ["data", "filter", str(folder / "pool"), str(folder / "out-*.tar"), "--against", str(folder / "eval")]
    towers = [options["embeddings_by"], "--similarity", str(options["similarity"]), "--scores-by", options["scores_by"]]
    words += ["--deduplicate", "--keep", "0.5", "--dry-run", "--embeddings-by", *towers]
    try:
        assert command(words) == 0
        again = page.read_text()
        assert (before.count("cannot be read now"), again.count("cannot be read now")) == (0, 4)
        (folder / "pool").rename(folder / "pool elsewhere")
        assert command(words) == 2
    finally:
        (folder / "elsewhere").rename(folder / "eval")
        page.write_text(before)


def test_links_lead_to_sections_and_names_are_no_markup(page: Path, measure: Measure) -> None:
    script = """
    const links = [...page.querySelectorAll("nav a")].map(one => page.querySelector(one.getAttribute("href")) !== null);
    return [links, page.querySelectorAll("main i, main b").length, page.querySelector("#broken").textContent];
    """
    links, foreign, broken = measure(page, script)
    assert links == [True] * 9
    assert foreign == 0
    assert "<b>f.png" in broken
