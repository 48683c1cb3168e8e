"""``aimcore export RUN --out FILE``: write the trained trunk of a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_export_arguments(commands: Any) -> None:
    """Add the command ``export``."""
    export = commands.add_parser(
        "export", help="write the trained trunk of a run to a file",
        description="Write the weights of a run's trunk, merged into a plain trunk where it is adapted (lora), as a "
        "safetensors file that initial_weights reads. Print the trunk as in a recipe.",
    )  # fmt: skip
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    export.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="file to write (.safetensors); it must not exist"
    )
    export.set_defaults(function=_export)


def _export(options: argparse.Namespace) -> int:
    return export_command(options.run, options.out)


def export_command(run: Path, file: Path) -> int:
    """Write the trunk's weights to ``file``, and print the trunk that has them, as in a recipe.

    Returns:
        0.

    Raises:
        AimcoreError: the run has no trained weights, or the file exists or cannot be written.
    """
    from aimcore.recipe.writing import plain
    from aimcore.running.trunk_export import export_trunk

    print(json.dumps(plain(export_trunk(run, file)), indent=2))
    return 0
