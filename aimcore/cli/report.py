"""``aimcore report OUT``: draw the report of a study that has run."""

from __future__ import annotations

import time
from pathlib import Path

from loguru import logger


def report_command(out: Path) -> int:
    """Draw ``report.html`` in ``out`` again.

    Returns:
        0: the page is drawn; it reports parts that could not be drawn.

    Raises:
        AimcoreError: ``out`` contains no results of a study.
    """
    from aimcore.report.page import draw_report

    began = time.perf_counter()
    page = draw_report(out)
    logger.info("drew {} in {:.1f} s", page, time.perf_counter() - began)
    return 0


def draw_after_run(out: Path) -> None:
    """Draw the report after a run. Errors are logged and do not change the status of the run."""
    from aimcore.io.atomic_files import make_folder
    from aimcore.io.run_folder import RunFolder, StudyFolder
    from aimcore.running.failures import Supervision

    folder = StudyFolder(out).figures
    with Supervision(RunFolder(folder)) as supervision:
        make_folder(folder)
        report_command(out)
    if supervision.status != "finished":
        if StudyFolder(out).summary.is_file():
            logger.error("the report could not be drawn. To draw it again: aimcore report {}", out)
        else:
            logger.error("the report could not be drawn, because {} is missing", StudyFolder(out).summary)
