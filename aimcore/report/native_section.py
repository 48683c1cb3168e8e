"""Runs at native resolution: the share of the token budget that steps use, the share of padding, and the drawn areas.

Shape suffix: S logged steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from aimcore.io.run_folder import METRICS_FILE
from aimcore.report.run_records import Absence, Floats, RunFiles, is_number
from aimcore.report.style import WIDTH, DrawnFigure, Series, figure, finished

NUM_BINS = 16
"""Number of bars of a histogram of areas, equally wide on a logarithmic axis, because areas are drawn by logarithm."""
_FIELDS = ("area", "num_patches", "padding_share")


@attrs.frozen(eq=False)
class NativeSteps:
    """The sizes of a run's steps, from its metrics."""

    areas_S: Floats
    """Patches of each image of a step."""
    patches_S: Floats
    """Patches of a step, over all processes."""
    padding_S: Floats
    """Share of a step's pixels that is padding."""
    budget: int | None
    """The constant C: the largest number of patches of a step. None if the recipe cannot be read."""


@attrs.frozen(eq=False)
class NativeSection:
    """The section of runs at native resolution."""

    rows: tuple[tuple[Series, NativeSteps], ...]
    figures: tuple[DrawnFigure, ...]
    """One per row."""
    missing: tuple[tuple[str, str], ...]
    """Experiment and reason."""


def native_shown(runs: Mapping[Series, RunFiles], slugs: Mapping[str, str], images: Path) -> NativeSection | None:
    """Draw the areas of each run at native resolution into ``images``; return None if there is no such run."""
    found = {series: steps for series, run in runs.items() if (steps := native_steps(run)) is not None}
    if not found:
        return None
    rows = [(series, steps) for series, steps in found.items() if isinstance(steps, NativeSteps)]
    return NativeSection(
        rows=tuple(rows),
        figures=tuple(draw_areas(steps, series, f"areas-{slugs[series.name]}", images) for series, steps in rows),
        missing=tuple((series.name, steps.reason) for series, steps in found.items() if isinstance(steps, Absence)),
    )


def native_steps(run: RunFiles) -> NativeSteps | Absence | None:
    """Return the sizes of a run's steps; None if neither its recipe nor its metrics mention native resolution."""
    settings, entries = _settings(run.recipe()), run.metrics()
    if isinstance(entries, Absence):
        return None if settings is None else entries
    sizes = list(_sizes(entries))
    if not sizes:
        return None if settings is None else Absence(run.sentence(METRICS_FILE, "has no areas"))
    budget = (settings or {}).get("patches_per_step")
    areas_S, patches_S, padding_S = np.array(sizes, dtype=np.float64).T
    return NativeSteps(areas_S, patches_S, padding_S, int(budget) if is_number(budget) else None)


def _settings(recipe: Mapping[str, Any] | Absence) -> Mapping[str, Any] | None:
    """Return ``experiment.data.native`` of a recipe."""
    found: Any = recipe
    for key in ("experiment", "data", "native"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _sizes(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, ...]]:
    for entry in entries:
        values = [entry.get(field) for field in _FIELDS]
        if all(is_number(value) for value in values) and values[0]:
            yield tuple(float(value) for value in values if is_number(value))


def draw_areas(steps: NativeSteps, series: Series, name: str, folder: Path) -> DrawnFigure:
    """Draw the number of logged steps per area of their images (arXiv:2411.14402, section 2.4)."""
    low, high = steps.areas_S.min(), steps.areas_S.max()
    edges = np.geomspace(low, max(high, low * 1.1), NUM_BINS + 1)
    with figure(WIDTH, 2.4) as drawn:
        axes = drawn.subplots()
        axes.hist(np.clip(steps.areas_S, edges[0], edges[-1]), bins=edges.tolist(), color=series.colour, rwidth=0.92)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda area, _: f"{area:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("area of a step's images, patches (log)")
        axes.set_ylabel("logged steps")
        alt = (
            f"Areas of the images of {series.name} in {len(steps.areas_S)} logged steps: "
            f"from {low:.0f} to {high:.0f} patches, half of the steps at most {np.median(steps.areas_S):.0f}."
        )
        return finished(drawn, name, alt=alt, folder=folder, title=series.name)
