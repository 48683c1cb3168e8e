"""Colours, SVG for the page, and names of files."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from aimcore.report.style import DARK, DASHES, LIGHT, NUM_COLOURS, Series, shortened, slugs, themed

MACHADO = {
    "any reader": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""What a colour in linear RGB looks like to readers (Machado, Oliveira and Fernandes 2009, at full severity)."""
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]


def lab(colour: str, seen: list[list[float]]) -> npt.NDArray[np.float64]:
    """CIELAB of a colour as it is seen."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    ratio = np.array(TO_XYZ) @ np.clip(np.array(seen) @ linear, 0, 1) / np.array(WHITE)
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("reader", MACHADO)
def test_no_two_series_look_alike_to_anybody(reader: str, scheme: dict[str, str]) -> None:
    seen = [lab(scheme[f"series-{number}"], MACHADO[reader]) for number in range(NUM_COLOURS)]
    # A difference of 2.3 is just noticeable side by side.
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > 15


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(scheme: dict[str, str]) -> None:
    for name in ("ink", "muted", "alert", "series-0"):
        assert contrast(scheme[name], scheme["page"]) >= 4.5
        assert contrast(scheme[name], scheme["panel"]) >= 4.5
    for number in range(NUM_COLOURS):
        assert contrast(scheme[f"series-{number}"], scheme["page"]) >= 3


def test_both_schemes_have_the_same_names_and_no_colour_twice() -> None:
    assert set(LIGHT) == set(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_eight_experiments_have_eight_colours_and_neighbours_other_dashes() -> None:
    series = [Series("", number) for number in range(8)]
    assert len({one.colour for one in series}) == 8
    assert all(one.dashes != other.dashes for one, other in itertools.pairwise(series))
    assert len(DASHES) == len(set(DASHES))


def test_an_svg_takes_the_page_s_colours_and_identifiers_of_its_own() -> None:
    svg = (
        '<?xml version="1.0"?><svg width="9pt" height="9pt" viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg">'
        '<metadata>made</metadata><g id="axes_1" clip-path="url(#p1)"><use xlink:href="#m1" '
        f'style="fill: {LIGHT["ink"]}; stroke: #123456"/></g></svg>'
    )
    assert themed(svg, "order-a", 'a "b" <c>') == (
        '<svg viewBox="0 0 9 9" role="img" aria-label="a &quot;b&quot; &lt;c&gt;">'
        '<g id="order-a-axes_1" clip-path="url(#order-a-p1)"><use xlink:href="#order-a-m1" '
        'style="fill: var(--ink); stroke: #123456"/></g></svg>'
    )


def test_names_of_files_are_safe_and_differ() -> None:
    made = slugs(["raster", "../../etc", "a/b", "a b", "A-B", "", "?", "x" * 300])
    assert list(made.values()) == ["raster", "etc", "a-b", "a-b-2", "A-B-3", "unnamed", "unnamed-2", "x" * 60]


def test_long_names_are_cut_in_the_middle_and_control_characters_dropped() -> None:
    assert shortened("a" * 40 + "b" * 40, 9) == "aaaa…bbbb"
    assert shortened("a\nb\ud800c") == "a b c"
