"""Kill ``aimcore embed`` at random moments, continue it, and compare the result with an uninterrupted one byte by byte.

    python benchmarks/embed_kills.py FOLDER --kills 30 [--format zarr] [--processes 2]

FOLDER receives images, a run with random weights, and the outputs. Every process is killed with SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from safetensors.torch import save_file

COMMAND = """
import sys
from aimcore.encoders import embedding
from aimcore.run import command
embedding.PART_ROWS = 8
sys.exit(command(sys.argv[1:]))
"""
"""The command, with small parts: of each, a few processes are killed."""


def prepare(folder: Path, number: int) -> str:
    """Write images and weights; return what names the encoder."""
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for index in range(number):
        pixels = generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"pictures/{index:05}.png")
    (folder / "pictures/00007.png").write_bytes(b"damaged")
    weights = folder / "weights.safetensors"
    if not weights.exists():
        save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    return f"timm:test_vit@{weights}"


def start(encoder: str, folder: Path, out: Path, rank: int = 0, processes: int = 1) -> subprocess.Popen[bytes]:
    """Start one process of the command."""
    words = ["embed", encoder, str(folder / "pictures"), str(out), "--batch-size", "4", "--tokens"]
    own = {"RANK": str(rank), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=os.environ | own, stderr=subprocess.DEVNULL)


def content(out: Path) -> dict[str, bytes]:
    """Return the content of all files."""
    files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out.parent).as_posix().partition("/")[2]: path.read_bytes() for path in files}


def stored(out: Path) -> int:
    """Return the number of parts that are stored; of a Parquet file, those of the group that is written first."""
    group = out if out.suffix == ".zarr" else out.with_name(f"{out.name}.partial.zarr")
    return len(list(group.glob("features/c/*/0/[0-9]")))


def main() -> int:
    """Run the check; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--format", choices=("zarr", "parquet"), default="zarr")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    encoder = prepare(options.folder, options.images)
    whole, out = (options.folder / f"{name}.{options.format}" for name in ("whole", "killed"))
    if start(encoder, options.folder, whole).wait():
        return 1
    generator, killed = random.Random(0), 0
    while True:
        running = [start(encoder, options.folder, out, rank, options.processes) for rank in range(options.processes)]
        if killed < options.kills:
            before = stored(out)
            # Most are killed at work, some while they start.
            is_at_work = generator.random() < 0.9
            while is_at_work and stored(out) == before and running[0].poll() is None:
                time.sleep(0.05)
            time.sleep(generator.uniform(0, 0.5))
        if killed < options.kills and running[0].poll() is None:
            for one in running:
                one.send_signal(signal.SIGKILL)
            killed += 1
        statuses = [one.wait() for one in running]
        if statuses[0] == -signal.SIGKILL:
            print(f"kill {killed}: {stored(out)} parts are stored", flush=True)
            continue
        if any(statuses) or content(whole) != content(out):
            print(f"after {killed} kills: status {statuses}, or DIFFERENT bytes")
            return 1
        print(f"after {killed} kills: complete, equal bytes", flush=True)
        if killed == options.kills:
            return 0
        shutil.rmtree(out) if out.is_dir() else out.unlink()


if __name__ == "__main__":
    sys.exit(main())
