"""``aimcore data inspect DATA``: how many samples and classes a source has."""

from __future__ import annotations

import argparse
from typing import Any


def add_inspect_action(actions: Any) -> None:
    """Add ``aimcore data inspect``."""
    inspect = actions.add_parser(
        "inspect", help="count the samples of a source", description="Count the samples and classes of a source."
    )
    inspect.add_argument(
        "data", metavar="DATA",
        help="a folder, *.zarr, *.tar, *.parquet, or a source by name or as JSON as in a recipe; a path or URL",
    )  # fmt: skip
    inspect.set_defaults(function=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from aimcore.io.terminal import Terminal
    from aimcore.running.image_sources import source_named

    opened = source_named(options.data).open()
    Terminal().print(f"{len(opened):,} samples, {len(opened.class_names)} classes", highlight=False)
    return 0
