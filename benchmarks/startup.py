"""What a study takes besides training and probing: its start, the way to the next experiment, the report, the end.

    python benchmarks/startup.py                     # two experiments at the scale "small": minutes
    python benchmarks/startup.py --scale smoke       # seconds; the shares mean nothing then

A process runs the study as a user would. The times are those at which it writes: its log, and the first line of each
``metrics.jsonl``. The table compares each time with the time of one experiment, from its first step to its last score;
the goal is a tenth.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep

import attrs

STUDY = Path(__file__).parent.parent / "examples" / "ablation_pattern.py"
EXPERIMENTS = ("raster", "spiral")
GOAL = 0.1
_REPORT, _RESULTS, _PROBE = re.compile(r"drew .* in ([\d.]+) s"), re.compile("results are in"), re.compile(": probe ")


@attrs.frozen
class Times:
    """When what was written, in seconds after the start of the process."""

    lines: Sequence[tuple[float, str]]
    """Of the log."""
    first_steps: Sequence[float]
    """End of the first step of each experiment."""
    end: float
    """Of the process."""

    def at(self, pattern: re.Pattern[str], part: str = "") -> float:
        """Return when the last line with ``pattern`` and ``part`` was written."""
        return max(time for time, line in self.lines if pattern.search(line) and part in line)


def main() -> None:
    """Print the table; the exit code is 1 if a time is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="small", choices=("small", "smoke"))
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as folder:
        times = measured(scale, Path(folder) / "runs")
    overheads = overheads_of(times)
    experiment = times.at(_PROBE, f"{EXPERIMENTS[0]}: ") - times.first_steps[0]
    print(f"one experiment, from its first step to its last score: {experiment:.1f} s")
    for name, seconds in overheads.items():
        print(f"{name:<44} {seconds:5.1f} s  {seconds / experiment:6.1%}")
    if scale == "small" and any(seconds > GOAL * experiment for seconds in overheads.values()):
        sys.exit(1)


def overheads_of(times: Times) -> dict[str, float]:
    """Return what the study takes besides training and probing, in seconds."""
    first, second = times.first_steps
    report = float(next(found[1] for _, line in times.lines if (found := _REPORT.search(line))))
    return {
        "start of the process to the end of step 1": first,
        "last score to step 1 of the next experiment": second - times.at(_PROBE, f"{EXPERIMENTS[0]}: "),
        "last score to the summary's last line": times.at(_RESULTS) - times.at(_PROBE) - report,
        "report": report,
        "last line to the end of the process": times.end - times.at(_RESULTS),
    }


def measured(scale: str, folder: Path) -> Times:
    """Run the study into ``folder``.

    Raises:
        RuntimeError: the run fails.
    """
    only = [argument for name in EXPERIMENTS for argument in ("--only", name)]
    command = [sys.executable, "-m", "aimcore.run", str(STUDY), "--scale", scale, *only, "--out", str(folder)]
    start, lines, first_steps = perf_counter(), list[tuple[float, str]](), dict[str, float]()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def watch() -> None:
        while process.poll() is None:
            for name in EXPERIMENTS:
                if name not in first_steps and (folder / name / "metrics.jsonl").is_file():
                    first_steps[name] = perf_counter() - start
            sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    lines.extend((perf_counter() - start, line) for line in process.stdout)
    watcher.join()
    if process.wait() != 0:
        raise RuntimeError("".join(line for _, line in lines[-20:]))
    return Times(lines, [first_steps[name] for name in EXPERIMENTS], perf_counter() - start)


if __name__ == "__main__":
    main()
