"""Damaged input of every kind, and what becomes of it: read as it should be, refused clearly, or a fault.

    python benchmarks/robustness.py                              # some minutes: 1,000 cases of each kind
    python benchmarks/robustness.py images --cases 100000
    python benchmarks/robustness.py shards --first 4711 --cases 1 --keep damaged    # one case again, its file kept

A case is drawn from (seed, kind, number) alone, so any of them can be repeated. Outcomes:

- ``fine``: read, and what was read is what it may be.
- ``refused``: an error that a user can act on, as all of :class:`aimcore.AimcoreError` are.
- ``fault``: anything else. Another exception, fewer samples than were written and no word of it, more than
  ``--seconds`` for one case, or more than ``--megabytes`` of memory on top of what the process had.

Exit status: 0, or 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal, NamedTuple, Self

import torch
from fuzz_data import Pictures, Shards, ZarrGroups
from fuzz_files import Manifests, Recipes, StudyFiles, TokenizerFiles, WeightFiles
from fuzz_subject import Subject
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from aimcore import AimcoreError

Kind = Literal["fine", "refused", "fault"]
_ALL: tuple[type[Subject], ...] = (
    Pictures, Shards, ZarrGroups, WeightFiles, TokenizerFiles, Recipes, Manifests, StudyFiles,
)  # fmt: skip
SUBJECTS: Mapping[str, type[Subject]] = {subject.name: subject for subject in _ALL}
_NUMBER = re.compile(r"\d+")


class Outcome(NamedTuple):
    """What became of one case."""

    number: int
    kind: Kind
    about: str
    """Type and first line of the error."""
    where: str = ""
    """Where in the code a fault was raised."""


class TookTooLong(BaseException):
    """A case went on for longer than it may; no library catches this."""


class _Judged:
    """Runs a case and says what became of it; only Ctrl-C gets out."""

    def __init__(self, number: int) -> None:
        self.outcome = Outcome(number, "fine", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, KeyboardInterrupt):
            return False
        about = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        refused = isinstance(error, AimcoreError)
        frames = traceback.extract_tb(trace)
        own = [frame for frame in frames if "aimcore" in frame.filename] or frames
        where = "" if refused else f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        self.outcome = Outcome(self.outcome.number, "refused" if refused else "fault", about, where)
        return True


def run(
    subject: Subject,
    numbers: Sequence[int],
    *,
    seed: int,
    seconds: float,
    megabytes: float,
    progress: Console | None = None,
) -> Iterator[Outcome]:
    """The outcomes of the cases ``numbers``, in turn."""
    hidden = progress is None or not progress.is_terminal
    before = _peak_megabytes()
    for number in track(numbers, subject.name, console=progress, disable=hidden):
        draw = random.Random(f"{seed}/{subject.name}/{number}")
        with _Judged(number) as judged, _within(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.try_case(draw)
        peak = _peak_megabytes()
        if peak > before + megabytes and judged.outcome.kind != "fault":
            judged.outcome = Outcome(number, "fault", f"Memory: {peak - before:.0f} MB more; {judged.outcome.about}")
        before = peak
        yield judged.outcome


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise :class:`TookTooLong` in the block after so long."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _silent_libraries() -> Iterator[Console]:
    """Drop what C libraries such as libtiff write to stderr; gives a console that still reaches it."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(stderr), "w") as file:
            yield Console(file=file)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_outcomes(name: str, outcomes: Sequence[Outcome], seconds: float, console: Console) -> None:
    """Counts by kind, the commonest refusals, and every kind of fault with the first case that shows it."""
    kinds = collections.Counter(outcome.kind for outcome in outcomes)
    counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in ("fine", "refused", "fault"))
    console.print(f"{name}: {len(outcomes):,} cases in {seconds:.0f} s: {counts}; peak {_peak_megabytes():,.0f} MB")
    table = Table("cases", "first", "outcome", "error", "at", box=None)
    alike: dict[tuple[str, ...], list[Outcome]] = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.kind != "fine":
            alike[outcome.kind, _NUMBER.sub("#", outcome.about)[:40], outcome.where].append(outcome)
    shown = sorted(alike.values(), key=lambda group: (group[0].kind != "fault", -len(group)))
    num_faults = sum(group[0].kind == "fault" for group in shown)
    for group in shown[: num_faults + 5]:
        first = group[0]
        table.add_row(f"{len(group):,}", str(first.number), first.kind, escape(repr(first.about)[:150]), first.where)
    if table.row_count:
        console.print(table)


def main() -> int:
    """Print a table for each kind of input; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest that one case may take")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="the most that one case may add")
    parser.add_argument("--keep", type=Path, help="folder for the damaged files; default: a temporary one")
    options = parser.parse_args()
    unknown = sorted(set(options.kinds) - SUBJECTS.keys())
    if unknown:
        parser.error(f"unknown kind {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    torch.set_num_threads(1)
    num_faults, console = 0, Console(width=220)
    for name in options.kinds or SUBJECTS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.keep or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            numbers = range(options.first, options.first + options.cases)
            bounds = {"seed": options.seed, "seconds": options.seconds, "megabytes": options.megabytes}
            with _silent_libraries() as progress:
                outcomes = list(run(SUBJECTS[name](folder), numbers, **bounds, progress=progress))
            print_outcomes(name, outcomes, time.perf_counter() - start, console)
            num_faults += sum(outcome.kind == "fault" for outcome in outcomes)
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
