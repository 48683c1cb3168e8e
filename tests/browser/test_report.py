"""The report in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_material import HOSTILE, make_native, make_study

from aimcore.report.page import draw_report
from aimcore.report.style import DARK, LIGHT

Measure = Callable[..., Any]

LONG = "an-experiment-whose-name-somebody-made-by-joining-every-setting-" * 3
WIDTHS = "const root = page.documentElement; return [root.scrollWidth, root.clientWidth];"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight experiments, probes and evaluations, with names that are hard to place; one has lost its files."""
    out = tmp_path_factory.mktemp("report") / "out"
    names = [HOSTILE, LONG, LONG.replace("-", " "), "raster", "spiral", "e", "f", "g"]
    make_study(out, names, probes=["linear", "attentive", LONG], evaluations=["zero_shot/top1", HOSTILE, LONG])
    (out / "1" / "metrics.jsonl").unlink()
    (out / "0" / "recipe.json").write_text(json.dumps({"experiment": {"x" * 300: ["y" * 300] * 5}}))
    return draw_report(out)


@pytest.mark.parametrize("width", [320, 375, 500, 768, 1300])
def test_nothing_is_wider_than_the_screen(width: int, report: Path, measure: Measure) -> None:
    scroll_width, client_width = measure(report, WIDTHS, width)
    assert scroll_width <= client_width
    assert client_width > width - 30


def test_a_page_that_is_too_wide_is_noticed(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text("<!doctype html><div style='width: 400px'>wide</div>")
    scroll_width, client_width = measure(tmp_path / "wide.html", WIDTHS)
    assert scroll_width > client_width


def test_a_message_on_the_console_is_noticed(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text("<!doctype html><script>console.error('loud')</script>")
    with pytest.raises(AssertionError, match="loud"):
        measure(tmp_path / "loud.html", WIDTHS)


def test_tables_too_wide_for_a_phone_scroll_in_their_own_box(report: Path, measure: Measure) -> None:
    script = """return [...page.querySelectorAll('.box')].filter(box => box.scrollWidth > box.clientWidth)
        .map(box => box.ariaLabel);"""
    assert measure(report, script) == [
        "Probe scores", "Scores of what the objective can do", "Losses", "Differences between the recipes",
    ]  # fmt: skip


def test_tables_of_seeds_and_of_native_steps_fit_too(measure: Measure, tmp_path: Path) -> None:
    out = make_study(tmp_path / "out", [f"{LONG}-{seed}" for seed in range(2)], only_seeds_differ=True)
    make_native(out / "0")
    make_native(out / "1")
    script = """return [...page.querySelectorAll('.box')].map(box => box.ariaLabel).concat(
        page.documentElement.scrollWidth <= page.documentElement.clientWidth);"""
    *labels, fits = measure(draw_report(out), script)
    assert {"Scores over seeds", "Sizes of steps at native resolution"} <= set(labels)
    assert fits


def test_figures_are_as_wide_as_a_phone_and_their_text_is_legible(report: Path, measure: Measure) -> None:
    script = """return [...page.querySelectorAll('figure > svg')].map(svg => [svg.getBoundingClientRect().width,
        ...[...svg.querySelectorAll('text')].map(text => text.getBoundingClientRect().height)]);"""
    for width, *heights in measure(report, script):
        assert 100 < width <= 375
        assert all(height >= 9 for height in heights)


@pytest.mark.parametrize(("dark", "palette"), [(False, LIGHT), (True, DARK)], ids=["light", "dark"])
def test_page_and_figures_follow_the_scheme(
    dark: bool, palette: dict[str, str], report: Path, measure: Measure
) -> None:
    script = """const line = page.querySelector('figure svg [style*="--series-3"]');
        return [view.getComputedStyle(page.body).backgroundColor, view.getComputedStyle(line).stroke];"""
    background, stroke = measure(report, script, dark=dark)
    assert (background, stroke) == (rgb(palette["page"]), rgb(palette["series-3"]))


def test_hostile_names_make_no_elements_and_are_shown_as_they_are(report: Path, measure: Measure) -> None:
    script = "return [page.scripts.length, page.querySelector('.keys li, .key').textContent.trim()];"
    assert measure(report, script) == [0, HOSTILE]


def test_what_is_collapsed_opens(report: Path, measure: Measure) -> None:
    script = """const all = [...page.querySelectorAll('details')], before = all[0].scrollHeight;
        all.forEach(one => { one.querySelector('summary').click(); });
        return [all.every(one => one.open), all[0].scrollHeight > before,
                page.documentElement.scrollWidth <= page.documentElement.clientWidth];"""
    assert measure(report, script) == [True, True, True]


def test_every_part_can_be_reached_and_read_aloud(report: Path, measure: Measure) -> None:
    script = """return {
        unlabelled: page.querySelectorAll('figure > svg:not([aria-label])').length,
        links: [...page.querySelectorAll('nav a')].every(a => page.getElementById(a.hash.slice(1))),
        boxes: [...page.querySelectorAll('.box')].every(box => box.tabIndex === 0 && box.ariaLabel),
        headings: [...page.querySelectorAll('h1, h2, h3')].map(h => h.tagName[1]).join(''),
    };"""
    found = measure(report, script)
    assert (found["unlabelled"], found["links"], found["boxes"]) == (0, True, True)
    assert found["headings"].startswith("12")
    assert "13" not in found["headings"]


def rgb(colour: str) -> str:
    """As a browser computes it."""
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
