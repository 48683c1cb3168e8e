"""``aimcore runs [DIR]``: a table of runs, as their files tell; live with ``--watch``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from aimcore.running.runs import Run, State, find_runs

_STYLES: dict[State, str] = {
    "running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "stale": "yellow",
}  # fmt: skip
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def runs_command(root: Path, *, watch: float | None = None, as_json: bool = False) -> int:
    """Print the runs below ``root``.

    Args:
        root: a folder of runs.
        watch: look again every so many seconds, until Ctrl-C.
        as_json: print a list of values instead of a table.

    Returns:
        0, whatever became of the runs.

    Raises:
        RunFolderError: there is no such folder.
    """
    console = Console()
    if as_json:
        console.print_json(data=[attrs.asdict(run) for run in find_runs(root)])
    elif watch is None:
        console.print(runs_table(find_runs(root), root))
    else:
        _watch(root, watch, console)
    return 0


def _watch(root: Path, seconds: float, console: Console) -> None:
    with Live(runs_table(find_runs(root), root), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(seconds)
                live.update(runs_table(find_runs(root), root), refresh=True)
        except KeyboardInterrupt:
            return


def runs_table(runs: Sequence[Run], root: Path) -> Table:
    """One row per run, below the folder that it is in."""
    caption = None if runs else f"no runs in {root}"
    table = Table(box=box.SIMPLE, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("step", "loss", "patches/s", "left", "age"):
        table.add_column(heading, justify="right", no_wrap=heading != "loss")
    above = ""
    for run in runs:
        *parents, name = (run.experiment,) if run.folder == "." else Path(run.folder).parts
        if "/".join(parents) != above:
            above = "/".join(parents)
            table.add_row(escape(above), style="dim")
        table.add_row(f"{'  ' if parents else ''}{escape(name)}", *_cells(run))
    return table


def _cells(run: Run) -> tuple[str, ...]:
    state = f"[{_STYLES[run.state]}]{run.state}[/]"
    rate = "-" if run.patches_per_second is None else f"{run.patches_per_second:,.0f}"
    left = "-" if run.seconds_left is None else duration(run.seconds_left)
    return state, _step(run), escape(_loss(run)), rate, left, duration(run.age)


def _step(run: Run) -> str:
    return str(run.step) if run.num_steps is None else f"{run.step}/{run.num_steps}"


def _loss(run: Run) -> str:
    """The value where there is one loss; else all, with their names."""
    values = [f"{value:.4f}" for value in run.losses.values()]
    if len(values) < 2:
        return "".join(values) or "-"
    return "\n".join(f"{name} {value}" for name, value in zip(run.losses, values, strict=True))


def duration(seconds: float) -> str:
    """A time in its largest unit: ``"45 s"``, ``"1.5 min"``, ``"3.5 h"``, ``"2.1 d"``."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    amount = seconds / size
    return f"{amount:.1f} {unit}" if unit != "s" and amount < 10 else f"{amount:.0f} {unit}"
