"""Progress on a terminal and elsewhere."""

import io
from collections.abc import Iterator
from unittest.mock import Mock

import attrs
import pytest
from loguru import logger
from rich.console import Console

from aimcore.engine.progress import BarProgress, LineProgress, Progress, progress_for
from aimcore.engine.training_engine import StepResult

RESULT = StepResult(
    losses={"next_patch": 0.5},
    num_targets={},
    num_patches=256,
    num_images=4,
    padding_share=0.0,
    gradient_norm=0.0,
    learning_rate=0.0,
    interrupted=False,
)
SHAPE = {"first_step": 0, "num_steps": 10}


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("aimcore")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)
    logger.disable("aimcore")


def test_a_line_is_logged_every_ten_seconds_and_at_the_end(said: list[str]) -> None:
    now = iter([0.0, 4.0, 10.0, 10.0, 12.0, 13.0, 13.0])
    with LineProgress("raster", clock=lambda: next(now), **SHAPE) as progress:
        for done in (1, 2, 9, 10):
            progress.update(RESULT, done)
    assert [line.split(",")[0] for line in said] == ["raster: step 2 of 10", "raster: step 10 of 10"]
    assert "next_patch 0.5000" in said[0]


def test_a_terminal_shows_a_bar_with_the_loss_and_the_rate() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with BarProgress("raster", console=console, **SHAPE) as progress:
        progress.update(RESULT, 5)
    assert "5/10" in screen.getvalue()
    assert "next_patch 0.5000" in screen.getvalue()


def test_a_terminal_that_was_closed_does_not_end_the_run() -> None:
    screen = io.StringIO()
    with BarProgress("raster", console=Console(file=screen, force_terminal=True), **SHAPE) as progress:
        progress.update(RESULT, 5)
        screen.write = Mock(side_effect=OSError(5, "Input/output error"))  # type: ignore[method-assign]
    screen.write.assert_called()


def test_padded_images_are_reported_with_their_area(said: list[str]) -> None:
    with LineProgress("native", clock=lambda: 0.0, **SHAPE) as progress:
        progress.update(attrs.evolve(RESULT, padding_share=0.126), 10)
    assert "next_patch 0.5000, 4 x 64 patches (13% padding)" in said[0]
    assert progress.num_images == 4


def test_nothing_is_shown_unless_requested() -> None:
    assert type(progress_for("raster", shown=False, **SHAPE)) is Progress
