"""Does aimcore work on this machine's accelerator? One table of checks and timings.

    python benchmarks/accelerator.py                              # everything, on one NVIDIA GPU: minutes
    python benchmarks/accelerator.py --only attention --only steps
    python benchmarks/accelerator.py --device cpu --quick         # tiny sizes, for a test of this program

| group | what it shows |
|---|---|
| collectives | the collectives of a run work (NCCL with one process) |
| attention | attention with every kind of mask equals the explicit form in float64, forward and backward |
| agreement | losses and gradients of every objective, with every part that fits, equal those of the CPU |
| stages | every objective trains at every ZeRO stage and precision |
| probes | probes learn on the device |
| checkpoints | a resumed run equals one without an interruption |
| studies | examples train, validate, are probed and evaluated |
| steps | time, model-FLOPs utilisation and memory of AIM-0.6B and AIMv2-L, beside a plain PyTorch loop |

The arithmetic of "share of peak" is that of ``aimcore.engine.cost``: a multiply-add is two FLOPs, attention is counted
in full, nothing is recomputed. The peak is the best rate of bfloat16 matrix products of the same process.

Exit status: 0; 1 if a bound is not met or a check fails; 2 if there is no such device.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerator_numbers import agreement_rows, attention_rows, collective_rows, probe_rows, stage_rows
from accelerator_rows import Row, Setting
from accelerator_runs import checkpoint_rows, study_rows
from accelerator_steps import step_rows
from rich.console import Console
from rich.markup import escape
from rich.table import Table

GROUPS: Mapping[str, Callable[[Setting], Iterator[Row]]] = {
    "collectives": collective_rows,
    "attention": attention_rows,
    "agreement": agreement_rows,
    "stages": stage_rows,
    "probes": probe_rows,
    "checkpoints": checkpoint_rows,
    "studies": study_rows,
    "steps": step_rows,
}


def describe(setting: Setting) -> dict[str, Any]:
    """Return the machine and the versions that matter."""
    is_cuda = setting.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(setting.device) if is_cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if is_cuda else None,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "quick": setting.quick,
    }


def table_of(rows: Sequence[Row], title: str) -> Table:
    """Return one line per check; what is wrong is marked."""
    table = Table(title=title, title_justify="left")
    for column in ("group", "check", "measured", "bound", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        finding = row.finding
        mark = "ok" if finding.is_right else "[bold red]WRONG[/]"
        table.add_row(row.group, escape(row.check), escape(finding.measured), escape(finding.bound), mark)
    return table


def measure(setting: Setting, groups: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """Run the groups; return their rows and the seconds of each group."""
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    for name in groups:
        begun = time.perf_counter()
        for row in GROUPS[name](setting):
            rows.append(row)
            print(f"{row.group}: {row.check}: {row.finding.measured}", file=sys.stderr, flush=True)
        seconds[name] = time.perf_counter() - begun
    return rows, seconds


def written(rows: Sequence[Row], machine: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Return the content of ``--json``."""
    lines = [
        {
            "group": row.group,
            "check": row.check,
            "is_right": row.finding.is_right,
            "measured": row.finding.measured,
            "bound": row.finding.bound,
            **row.finding.numbers,
        }
        for row in rows
    ]
    return json.dumps({"machine": machine, "seconds": seconds, "rows": lines}, indent=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=tuple(GROUPS), action="append", help="run this group; may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and fewer cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    given = parser.parse_args(arguments)
    if given.device == "cpu" and torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the engine takes a GPU if it sees one
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU is visible: run this on a machine with one, or with --device cpu --quick", file=sys.stderr)
        return 2
    setting = Setting(torch.device(given.device), given.quick)
    rows, seconds = measure(setting, given.only or tuple(GROUPS))
    machine = describe(setting)
    title = ", ".join(f"{name} {value}" for name, value in machine.items() if value)
    Console(width=None if sys.stdout.isatty() else 160).print(table_of(rows, title))
    print(", ".join(f"{name} {taken:.0f} s" for name, taken in seconds.items()))
    if given.json:
        given.json.write_text(written(rows, machine, seconds) + "\n")
    wrong = [row for row in rows if not row.finding.is_right]
    print(
        f"{len(rows) - len(wrong)} of {len(rows)} are right" + "".join(f"\nWRONG: {r.group}: {r.check}" for r in wrong)
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
