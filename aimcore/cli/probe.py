"""``aimcore probe RUN``: probe a trained run again, or with other probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aimcore.io.terminal import Terminal


def probe_command(run: Path, changes: Sequence[str], features_cache: str | None) -> int:
    """Probe the run in the folder ``run``; print the study's scores, and draw its report again.

    Returns:
        0.

    Raises:
        AimcoreError: the run cannot be probed like this; no saved file is changed.
    """
    from aimcore.cli.report import draw_after_run
    from aimcore.report.terminal_table import print_summary
    from aimcore.running.reprobing import probe_again

    summary, out = probe_again(run, changes, features_cache=features_cache), run.absolute().parent
    print_summary(summary, Terminal(), out)
    draw_after_run(out)
    return 0
