"""Kill a training run at random moments, continue it, and compare its losses with those of an uninterrupted run.

    python benchmarks/train_kills.py FOLDER --kills 200 [--processes 2] [--zero-stage 2]

All processes of a run are killed with SIGKILL: half of the times while a checkpoint is being written, the others at any
moment. The losses of every step must be equal to the last bit. The processes are forks of this one, which has imported
what they need, so that most are killed at work and not while they start. FOLDER receives the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from loguru import logger

import aimcore.engine.preloading
from aimcore import Data, Engine, Experiment
from aimcore.io.atomic_files import PARTIAL
from aimcore.io.run_folder import StudyFolder
from aimcore.running.experiment_run import run_experiment
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST, FewLabels
from aimcore_trunks import ViT

NAME, NUM_STEPS = "killed", 24


def experiment(zero_stage: int) -> Experiment:
    """Return a run of seconds that saves a checkpoint after every second step."""
    train, validation = (
        FewLabels(source=BundledFashionMNIST(split=split), per_class=20) for split in ("train", "test")
    )
    return Experiment(
        name=NAME,
        data=Data(train=train, validation=validation, batch_size=8, image_size=28, eval_crop=1.0),
        trunk=ViT(width=32, depth=2, num_heads=2, patch_size=4),
        objective=NextPatch(head=MLPHead(width=32, depth=1)),
        num_steps=NUM_STEPS,
        checkpoint_every=2,
        engine=Engine(zero_stage=zero_stage, num_threads=1),
    )


def start(out: Path, settings: Experiment, processes: int) -> list[int]:
    """Fork the processes of a run, which continues what is in ``out``; return their numbers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    sizes = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **sizes}
    started = []
    for rank in map(str, range(processes)):
        pid = os.fork()
        if not pid:
            if processes > 1:
                os.environ.update(meeting, RANK=rank, LOCAL_RANK=rank)
            _become_run(out, settings)
        started.append(pid)
    return started


def _become_run(out: Path, settings: Experiment) -> None:
    """Run in this process, which was just forked, and end it."""
    status = 1
    try:
        os.setsid()
        logger.remove()
        status = int(run_experiment(settings, out, resume=True).status != "finished")
    finally:
        os._exit(status)


def partial_folders(out: Path) -> set[int]:
    """Return the inodes of the checkpoints that were begun and are not complete."""
    return {path.stat().st_ino for path in StudyFolder(out).run(NAME).checkpoints.glob(f"*{PARTIAL}")}


def losses(out: Path) -> dict[int, float]:
    """Return the loss of each step.

    Raises:
        RuntimeError: a step is missing, or is there twice.
    """
    lines = [json.loads(line) for line in StudyFolder(out).run(NAME).metrics.read_text().splitlines()]
    found = {line["step"]: line["losses"]["next_patch"] for line in lines}
    if [line["step"] for line in lines] != list(range(NUM_STEPS)):
        raise RuntimeError(f"{out} has the steps {[line['step'] for line in lines]}")
    return found


def wait_to_kill(out: Path, started: list[int], left: set[int], generator: random.Random) -> bool:
    """Wait for a random moment; return whether a checkpoint is being written then.

    Args:
        out: the run's parent folder.
        started: its processes.
        left: incomplete checkpoints that an earlier kill has left.
        generator: draws the moment.
    """

    def is_saving() -> bool:
        try:
            return bool(partial_folders(out) - left)
        except FileNotFoundError:  # it was completed meanwhile
            return False

    if generator.random() < 0.5:
        for _ in range(generator.randint(1, 4)):
            while not is_saving() and not ended(started):
                time.sleep(0.0005)
            time.sleep(generator.uniform(0, 0.02))
    else:
        time.sleep(generator.uniform(0, 4.0))
    return is_saving()


def ended(started: list[int]) -> bool:
    """Whether the first process has ended; its status can still be read."""
    return os.waitid(os.P_PID, started[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def statuses(started: list[int]) -> list[int]:
    """Wait for all processes; return their exit statuses, negative for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]


def main() -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = experiment(options.zero_stage)
    whole, number = options.folder / "whole", 0
    if any(statuses(start(whole, settings, options.processes))):
        print("the uninterrupted run failed")
        return 1
    expected, generator, counts = losses(whole), random.Random(0), Counter[str]()
    while True:
        out = options.folder / f"run-{number}"
        left = partial_folders(out)
        started = start(out, settings, options.processes)
        if counts["kills"] < options.kills:
            was_saving = wait_to_kill(out, started, left, generator)
            if not ended(started):
                for pid in started:
                    os.kill(pid, signal.SIGKILL)
                counts["kills"] += 1
                counts["kills while saving"] += was_saving
        found = statuses(started)
        if any(status < 0 for status in found):
            continue
        if any(found) or losses(out) != expected:
            print(f"{dict(counts)}: {out} ended with {found}, or has OTHER losses")
            return 1
        counts["runs that finished with equal losses"] += 1
        number += 1
        print(", ".join(f"{name}: {count}" for name, count in counts.items()), flush=True)
        if counts["kills"] >= options.kills:
            return 0


if __name__ == "__main__":
    assert aimcore.engine.preloading
    sys.exit(main())
