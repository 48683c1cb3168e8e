"""``report.html``: one self-contained page, drawn from the files in a study's folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aimcore.contracts.errors import ReportError
from aimcore.io.atomic_files import make_folder, write_atomically
from aimcore.io.run_folder import SUMMARY_FILE, StudyFolder
from aimcore.recipe.difference import in_words
from aimcore.report.caveats import is_guessed
from aimcore.report.page_content import Content, content_of, half_interval
from aimcore.report.run_records import Absence, files_of
from aimcore.report.style import DARK, LIGHT
from aimcore.running.summary import read_summary

FIGURE_KINDS = (
    "scores",
    "layers",
    "training",
    "chunks",
    "scaling",
    "labels",
    "areas",
    "order",
    "predictions",
    "attention",
)
"""Prefix of the names of figures."""


def draw_report(out: Path) -> Path:
    """Draw the report of the study in ``out``: ``report.html``, and every figure as ``report/*.png``.

    If a file is missing or damaged, the page shows a message instead of its figure. Images of predictions and attention
    come from ``samples.npz``, which is computed from the checkpoint if it does not exist; see
    :mod:`aimcore.report.sample_making`.

    Returns:
        The page's path.

    Raises:
        ReportError: ``out`` has no ``summary.json``, or its folder of figures is a link.
        InvalidSummary: the summary does not follow its schema.
    """
    study = StudyFolder(out)
    path = study.summary
    if not os.path.isfile(path):
        raise ReportError(f"{out} has no {SUMMARY_FILE}: give the folder of a study that has run{_hint(out)}")
    summary = read_summary(path)
    runs = [files_of(entry, out) for entry in summary.experiments]
    images = study.figures
    if images.is_symlink():
        raise ReportError(
            f"{images} is a link to another folder, in which no figure is written or removed: remove the link"
        )
    make_folder(images)
    content = content_of(summary, runs, out, images)
    _remove_outdated(images, _figure_names(content))
    return _write(html_of(content), study.report)


def _hint(out: Path) -> str:
    return f" (did you mean {out.parent}?)" if os.path.isfile(StudyFolder(out.parent).summary) else ""


def html_of(content: Content) -> str:
    """Return the page as text. Everything that comes from files is escaped."""
    return _TEMPLATES.get_template("page.html").render(
        content=content, summary=content.summary, half_interval=half_interval, svg=Markup, light=LIGHT, dark=DARK
    )


def _templates() -> Environment:
    """Return the templates, each of which is compiled once."""
    environment = Environment(
        loader=PackageLoader("aimcore.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "in_words": in_words,
        "percent": _percent,
        "loss": _loss,
        "whole": _whole,
        "gigabytes": _gigabytes,
        "json": _json,
        "number": _number,
        "words": _words,
        "points": _points,
        "points_interval": _points_interval,
    }
    environment.tests["absent"] = lambda value: isinstance(value, Absence)
    environment.tests["guessed"] = is_guessed
    environment.tests["sentences"] = _are_sentences
    return environment


def _figure_names(content: Content) -> list[str]:
    shown = (content.training, content.chunks, content.orders, content.reconstructions, content.attention)
    scaling = content.scaling.figures if content.scaling is not None else ()
    labels = content.labels.figures if content.labels is not None else ()
    areas = content.native.figures if content.native is not None else ()
    others = (one for part in shown for one in part.figures)
    return [one.name for one in (*content.scores, *scaling, *labels, *areas, *others)]


def _remove_outdated(images: Path, names: Sequence[str]) -> None:
    """Remove figures of an earlier report that this one did not draw."""
    for path in images.glob("*.png"):
        if path.stem not in names and path.stem.partition("-")[0] in FIGURE_KINDS:
            path.unlink()


def _write(text: str, path: Path) -> Path:
    # JSON may contain a lone surrogate, which no text file can.
    write_atomically(path, text.encode(errors="replace"))
    return path


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _points_interval(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{_points(interval[0])} to {_points(interval[1])}"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _gigabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e9:,.2f}"


def _words(name: str) -> Markup:
    """Return a name that may be broken after the characters that join its words."""
    return Markup("<wbr>").join(re.findall(r"[^/_]*[/_]|[^/_]+", name))


def _are_sentences(value: Any) -> bool:
    """Return whether these texts contain commas, so that commas could not separate them."""
    return isinstance(value, list | tuple) and any(isinstance(item, str) and re.search("[,;] ", item) for item in value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _number(value: Any) -> str:
    """Format a plain value for a reader: no quotes, four digits, yes and no."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list | tuple | Mapping):
        return ", ".join(map(_number, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_TEMPLATES = _templates()
