"""The style of figures: one palette with two schemes, and matplotlib figures as SVG that follows the page's scheme.

Figures are drawn in the light scheme's colours, which is what the PNGs show; in the SVG each of them becomes a CSS
variable, which the page sets for both schemes.
"""

from __future__ import annotations

import io
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import matplotlib as mpl
from matplotlib.figure import Figure

from aimcore.io.atomic_files import replacing

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#1d2126",
        "muted": "#5c6670",
        "line": "#d3d9df",
        "panel": "#eef1f4",
        "page": "#fdfdfe",
        "alert": "#b3101c",
        "series-0": "#2036dd",
        "series-1": "#d56710",
        "series-2": "#28a07e",
        "series-3": "#c05ee8",
        "series-4": "#803600",
        "series-5": "#8e7aab",
        "series-6": "#6c168a",
        "series-7": "#3a4135",
    }
)
"""Text, lines and series on white. Each series has a contrast of at least 3 : 1 to the page, and readers with any kind
of colour blindness can distinguish all of them (tests/core/report/test_style.py)."""

DARK: Mapping[str, str] = MappingProxyType(
    {
        "ink": "#e5e9ed",
        "muted": "#a0abb6",
        "line": "#39424b",
        "panel": "#20262c",
        "page": "#14181c",
        "alert": "#ff7b7b",
        "series-0": "#75a0d0",
        "series-1": "#fe9a52",
        "series-2": "#38edc3",
        "series-3": "#9a55fb",
        "series-4": "#d2431f",
        "series-5": "#d47dff",
        "series-6": "#a542b8",
        "series-7": "#a1a078",
    }
)
NUM_COLOURS = 8
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
"""Dashes distinguish series without colour: lengths on and off, in line widths."""

WIDTH = 5.0
"""Width in inches: 360 units in the SVG, so that text of 11 units can be read on a phone without zooming."""
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aimcore",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
}
_COLOUR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
_IDENTIFIER = re.compile(r'( id="|url\(#|href="#)')


@attrs.frozen
class Series:
    """The look of one experiment in every figure."""

    name: str
    number: int

    @property
    def variable(self) -> str:
        """The CSS variable of its colour."""
        return f"series-{self.number % NUM_COLOURS}"

    @property
    def colour(self) -> str:
        """The colour in the light scheme."""
        return LIGHT[self.variable]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Lengths on and off, in line widths; empty for a solid line."""
        return DASHES[self.number % len(DASHES)]

    @property
    def label(self) -> str:
        """The name in figures: on one line, shortened in the middle."""
        return shortened(self.name)


@attrs.frozen
class DrawnFigure:
    """A figure of the page, and its PNG."""

    name: str
    """File name of the PNG, without its suffix."""
    svg: str
    alt: str
    title: str = ""


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """Create a figure of this size in inches in the style of the report, laid out when it is saved."""
    with mpl.rc_context(_RC):
        yield Figure(figsize=(width, height), layout="constrained")


def finished(
    drawn: Figure, name: str, *, alt: str, folder: Path, title: str = "", before_png: Callable[[], None] | None = None
) -> DrawnFigure:
    """Write the figure's PNG to ``folder``, and return the figure for the page. Call it inside :func:`figure`.

    Args:
        drawn: the figure.
        name: of the PNG, and of the identifiers inside the SVG.
        alt: what it shows, for those who cannot see it.
        folder: where PNGs go.
        title: text above the figure.
        before_png: adds what only the PNG needs: the page has its legends as text.
    """
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="none")
    svg = themed(buffer.getvalue(), name, alt)
    if title:
        drawn.suptitle(shortened(title, 60), fontsize=12)
    if before_png is not None:
        before_png()
    with replacing(folder / f"{name}.png") as partial:
        drawn.savefig(partial, format="png", dpi=200, facecolor=LIGHT["page"])
    return DrawnFigure(name, svg, alt, title)


def legend_below(drawn: Figure, series: Sequence[Series]) -> None:
    """Draw the names of the series below a figure, which grows by their height."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=one.colour, dashes=one.dashes or (None, None), label=one.label) for one in series]
    columns = 2 if max(len(one.label) for one in series) <= 22 else 1
    width, height = drawn.get_size_inches()
    drawn.set_size_inches(width, height + 0.22 * -(-len(series) // columns) + 0.1)
    drawn.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=10)


def themed(svg: str, name: str, alt: str) -> str:
    """Convert matplotlib's SVG for a page: as wide as its container, with CSS variables and unique identifiers."""
    names = {colour: variable for variable, colour in LIGHT.items()}

    def variable(match: re.Match[str]) -> str:
        known = names.get(match[2])
        return f"{match[1]}: var(--{known})" if known else match[0]

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = _IDENTIFIER.sub(rf"\g<1>{name}-", _COLOUR.sub(variable, body))
    opening, rest = body.split(">", 1)
    opening = re.sub(r' (?:width|height|version|xmlns(?::xlink)?)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(alt)}">{rest}'


def shortened(name: str, length: int = 32) -> str:
    """Return ``name`` without unprintable characters, with at most ``length`` characters, cut in the middle."""
    plain = "".join(" " if unicodedata.category(char).startswith("C") else char for char in name)
    half = (length - 1) // 2
    return plain if len(plain) <= length else f"{plain[:half]}…{plain[-half:]}"


def slugs(names: Sequence[str]) -> Mapping[str, str]:
    """Return a file name for each of ``names``, without a suffix: valid everywhere, and all different."""
    made: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60] or "unnamed"
        candidates = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        taken = {slug.lower() for slug in made.values()}
        made[name] = next(slug for slug in candidates if slug.lower() not in taken)
    return made
