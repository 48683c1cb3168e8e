"""``aimcore data inspect DATA``: what a source holds."""

from __future__ import annotations

import argparse
from typing import Any


def add_inspect_action(actions: Any) -> None:
    """Add ``aimcore data inspect``."""
    inspect = actions.add_parser(
        "inspect", help="count what a source holds", description="Count the samples and classes of a source."
    )
    inspect.add_argument("data", metavar="DATA", help="a folder, or a source by name or as JSON as in a recipe")
    inspect.set_defaults(function=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from aimcore.io.terminal import Terminal
    from aimcore.running.image_sources import source_named

    opened = source_named(options.data).open()
    Terminal().print(f"{len(opened):,} samples, {len(opened.class_names)} classes", highlight=False)
    return 0
