"""Figures of images: reading orders, reconstructions, attention maps. They are drawn only from ``samples.npz``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from aimcore.report.sample_files import Array, SampleArrays
from aimcore.report.style import LIGHT, WIDTH, DrawnFigure, figure, finished

_WHITE, _BLACK, _RED = "#ffffff", "#000000", "#d7191c"
"""Colours on images, where those of the page do not matter."""


def draw_order(samples: SampleArrays, experiment: str, name: str, folder: Path) -> DrawnFigure:
    """Draw the patches, coloured by the step at which they are read, and their path (arXiv:2401.08541, Figure 8)."""
    assert samples.order_N is not None
    rows, columns = np.divmod(samples.order_N, samples.columns)
    step_RC = np.empty((samples.rows, samples.columns))
    step_RC[rows, columns] = np.arange(samples.num_patches)
    side = 2.2
    with figure(side, side * samples.rows / samples.columns) as drawn:
        axes = drawn.subplots()
        axes.imshow(step_RC, cmap="cividis", interpolation="none")
        _bare(axes)
        width = min(1.2, 9 / max(samples.rows, samples.columns))
        outline = [patheffects.Stroke(linewidth=width + 1, foreground=_BLACK, alpha=0.55), patheffects.Normal()]
        axes.plot(columns, rows, color=_WHITE, linewidth=width, path_effects=outline, solid_joinstyle="round")
        size = min(8.0, 80 / max(samples.rows, samples.columns))
        axes.plot(columns[0], rows[0], "o", color=_WHITE, markeredgecolor=_BLACK, markersize=size)
        axes.plot(columns[-1], rows[-1], "s", color=_BLACK, markeredgecolor=_WHITE, markersize=size)
        path = f"from row {rows[0] + 1}, column {columns[0] + 1} to row {rows[-1] + 1}, column {columns[-1] + 1}"
        alt = f"Reading order of {experiment} on {samples.rows} x {samples.columns} patches, {path}."
        if samples.order_is_own:
            alt += " Every sample has an order of its own; this is that of sample number 0."
        return finished(drawn, name, alt=alt, folder=folder, title=experiment)


def draw_predictions(samples: SampleArrays, experiment: str, name: str, folder: Path) -> DrawnFigure:
    """Draw images above their predictions; given patches are framed. True codes are decoded in between."""
    images, predicted, scored = samples.images_BHWC, samples.predicted_BHWC, samples.predicted_BN
    decoded = samples.decoded_BHWC
    assert images is not None
    assert predicted is not None
    assert scored is not None
    number = len(images)
    labels = ("original", *(() if decoded is None else ("true codes",)), "predicted")
    last = len(labels) - 1
    given = images if decoded is None else decoded  # a dVAE decodes predicted codes together with true ones
    with figure(WIDTH, 0.2 + len(labels) * (WIDTH - 0.3) / max(number, 3)) as drawn:
        grid = drawn.subplots(len(labels), number, squeeze=False)
        for column in range(number):
            _show(grid[0, column], images[column])
            if decoded is not None:
                _show(grid[1, column], decoded[column])
            given_N = ~scored[column]
            _show(grid[last, column], _with_given(predicted[column], given[column], given_N, samples))
            for place in np.flatnonzero(given_N):
                _frame(grid[last, column], int(place), samples, images.shape[1:3])
        for row, label in enumerate(labels):
            grid[row, 0].set_ylabel(label)
        error = np.abs(images.astype(float) - predicted)[_pixels(scored, samples, images.shape)].mean()
        alt = (
            f"{number} validation images above the patches that {experiment} predicts of them; "
            f"predicted pixels are off by {error:.0f} of 255 on average."
        )
        return finished(drawn, name, alt=alt, folder=folder, title=experiment)


def _with_given(predicted: Array, image: Array, given_N: Array, samples: SampleArrays) -> Array:
    """Return the predicted image with the true pixels of given patches."""
    given_HW1 = _pixels(given_N[None], samples, (1, *image.shape))[0, :, :, None]
    return np.where(given_HW1, image, predicted)


def _pixels(patches_BN: Array, samples: SampleArrays, shape: tuple[int, ...]) -> Array:
    """Convert a mask of patches to a mask of pixels, ``[B, H, W]``."""
    grid_BRC = patches_BN.reshape(-1, samples.rows, samples.columns)
    return np.asarray(
        grid_BRC.repeat(shape[1] // samples.rows, axis=1).repeat(shape[2] // samples.columns, axis=2), dtype=bool
    )


def draw_attention(samples: SampleArrays, experiment: str, name: str, folder: Path) -> DrawnFigure:
    """Draw images with the query patches, and the attention of each query."""
    images, attention, queries = samples.images_BHWC, samples.attention_BQN, samples.queries_Q
    assert images is not None
    assert attention is not None
    assert queries is not None
    number = len(attention)
    with figure(WIDTH, 0.25 + number * (WIDTH - 0.2) / (len(queries) + 1)) as drawn:
        grid = drawn.subplots(number, len(queries) + 1, squeeze=False)
        for row in range(number):
            _show(grid[row, 0], images[row])
            for column, place in enumerate(queries):
                axes = grid[row, column + 1]
                seen_RC = attention[row, column].astype(np.float32).reshape(samples.rows, samples.columns)
                axes.imshow(seen_RC, cmap="viridis", interpolation="none", vmin=0)
                axes.set_facecolor(LIGHT["panel"])
                _bare(axes)
                _frame(axes, int(place), samples, (samples.rows, samples.columns))
                if row == 0:
                    axes.set_title(f"step {_step_of(int(place), samples)}", fontsize=10)
        alt = f"Attention of the last block of {experiment}, {_alt_of_queries(samples)}."
        return finished(drawn, name, alt=alt, folder=folder, title=experiment)


def _step_of(place: int, samples: SampleArrays) -> int:
    """Return the step, counted from 1, at which the patch at raster index ``place`` is read."""
    order_N = np.arange(samples.num_patches) if samples.order_N is None else samples.order_N
    return int(np.flatnonzero(order_N == place)[0]) + 1


def _alt_of_queries(samples: SampleArrays) -> str:
    assert samples.queries_Q is not None
    places = (divmod(int(place), samples.columns) for place in samples.queries_Q)
    return "seen from " + "; ".join(f"row {row + 1}, column {column + 1}" for row, column in places)


def _show(axes: Axes, image_HWC: Array) -> None:
    if image_HWC.shape[2] != 3:  # grey, or channels that are not colours
        image_HWC = image_HWC.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8)
    axes.imshow(image_HWC, interpolation="none")
    _bare(axes)


def _bare(axes: Axes) -> None:
    """Remove ticks, frame and grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _frame(axes: Axes, place: int, samples: SampleArrays, shape: tuple[int, int]) -> None:
    """Draw a frame around a patch, in red on white so that it is visible on any image."""
    for rectangle in _rectangles(place, samples, shape):
        axes.add_patch(rectangle)


def _rectangles(place: int, samples: SampleArrays, shape: tuple[int, int]) -> Iterator[Rectangle]:
    row, column = divmod(place, samples.columns)
    height, width = shape[0] / samples.rows, shape[1] / samples.columns
    corner = (column * width - 0.5, row * height - 0.5)
    for colour, linewidth in ((_WHITE, 2.2), (_RED, 1.2)):
        yield Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=linewidth, clip_on=False)
