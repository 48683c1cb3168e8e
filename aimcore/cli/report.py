"""``aimcore report OUT``: draw the report of a study that has run."""

from __future__ import annotations

import time
from pathlib import Path

from loguru import logger


def report_command(out: Path) -> int:
    """Draw ``report.html`` in ``out`` again.

    Returns:
        0: it is drawn; where something could not be, the page says so.

    Raises:
        AimcoreError: ``out`` holds no study's results.
    """
    from aimcore.report.page import draw_report

    began = time.perf_counter()
    page = draw_report(out)
    logger.info("drew {} in {:.1f} s", page, time.perf_counter() - began)
    return 0


def draw_after_run(out: Path) -> None:
    """Draw the report of a run that just ended; whatever goes wrong is logged, and the run stays what it was."""
    from aimcore.io.atomic_files import make_folder
    from aimcore.io.run_folder import StudyFolder
    from aimcore.running.failures import Supervised

    folder = StudyFolder(out).figures
    with Supervised(folder) as supervised:
        make_folder(folder)
        report_command(out)
    if supervised.status != "finished":
        logger.error("the report is not drawn, the run's results are unharmed; to draw it: aimcore report {}", out)
