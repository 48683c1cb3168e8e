"""``aimcore runs [DIR]``: a table of runs, derived from their files; live with ``--watch``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aimcore.contracts.messages import printable
from aimcore.io.terminal import Terminal
from aimcore.running.run_listing import Run, State, find_runs

_STYLES: dict[State, str] = {
    "running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "stale": "yellow",
}  # fmt: skip
_WIDEST_NAME = 30
"""Names up to this length are not broken in 80 columns."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def runs_command(root: Path, *, watch: float | None = None, as_json: bool = False) -> int:
    """Print the runs in ``root``.

    Args:
        root: a folder of runs.
        watch: seconds between refreshes of the table, which end with Ctrl-C.
        as_json: print a JSON list instead of a table.

    Returns:
        0, whatever the states of the runs.

    Raises:
        RunFolderError: the folder does not exist.
    """
    console = Terminal()
    if as_json:
        console.print_data([attrs.asdict(run) for run in find_runs(root)])
    elif watch is None:
        console.print(runs_table(find_runs(root), root))
    else:
        _watch(root, watch, console)
    return 0


def _watch(root: Path, seconds: float, console: Terminal) -> None:
    with Live(runs_table(find_runs(root), root), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                live.update(runs_table(find_runs(root), root), refresh=True)
        except KeyboardInterrupt:
            return


def runs_table(runs: Sequence[Run], root: Path) -> Table:
    """Return a table with one row per run, grouped by folder."""
    caption = None if runs else f"no runs in {root}"
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    names = [part for run in runs for part in (str(Path(run.folder).parent), f"  {Path(run.folder).name}")]
    longest = max(map(len, names), default=0)
    table.add_column("run", overflow="fold", no_wrap=longest <= _WIDEST_NAME)
    table.add_column("state", no_wrap=True)
    for heading in ("step", "loss", "patches/s", "left", "age"):
        table.add_column(heading, justify="right", overflow="fold", no_wrap=heading != "loss")
    above = ""
    for run in runs:
        # A line break in a name would look like another row.
        *parents, name = map(printable, (run.experiment,) if run.folder == "." else Path(run.folder).parts)
        if "/".join(parents) != above:
            above = "/".join(parents)
            table.add_row(above, style="dim")
        table.add_row(f"{'  ' if parents else ''}{name}", *_cells(run))
    return table


def _cells(run: Run) -> tuple[str | Text, ...]:
    state = Text(run.state, _STYLES[run.state])
    rate = "-" if run.patches_per_second is None else f"{run.patches_per_second:,.0f}"
    left = "-" if run.seconds_left is None else duration(run.seconds_left)
    return state, _step(run), _loss(run), rate, left, duration(run.age)


def _step(run: Run) -> str:
    return str(run.step) if run.num_steps is None else f"{run.step}/{run.num_steps}"


def _loss(run: Run) -> str:
    """Return the value of the first loss and, on further lines, the others with their names."""
    texts = [f"{printable(name)} {value:.4f}" for name, value in run.losses.items()]
    texts[:1] = [f"{value:.4f}" for value in list(run.losses.values())[:1]]
    return "\n".join(texts) or "-"


def duration(seconds: float) -> str:
    """Format a time in its largest unit: ``"45 s"``, ``"1.5 min"``, ``"3.5 h"``, ``"2.1 d"``."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    amount = seconds / size
    return f"{amount:.1f} {unit}" if unit != "s" and amount < 10 else f"{amount:.0f} {unit}"
