"""``aimcore inspect FILE``: what a file of weights holds, in a table."""

from __future__ import annotations

import argparse
from typing import Any

from aimcore.cli.encoder_arguments import add_encoder_settings, encoder_settings, require_place


def add_inspect_arguments(commands: Any) -> None:
    """Add the command ``inspect``."""
    inspect = commands.add_parser(
        "inspect", help="show what a file of weights holds",
        description="Show what a file of weights holds: its layout, the model, the preprocessing that it expects, its "
        "size, hash and licence. The file must fit a layout completely, and hold finite numbers. Exit status: 0, or 2 "
        "if it cannot be opened.",
    )  # fmt: skip
    inspect.add_argument(
        "file", metavar="FILE",
        help="a file, a folder, a run's folder, a URL (hf://OWNER/NAME), timm:MODEL@FILE, or transformers:FOLDER",
    )  # fmt: skip
    add_encoder_settings(inspect)
    inspect.add_argument("--head", metavar="FILE", help="a file with an attention probe of AIM")
    inspect.add_argument("--json", action="store_true", help="print an object instead of a table")
    inspect.set_defaults(function=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    require_place(options.file)
    from aimcore.encoders import load_encoder

    return inspect_command(load_encoder(options.file, **encoder_settings(options)), as_json=options.json)


def inspect_command(encoder: Any, *, as_json: bool = False) -> int:
    """Print what ``encoder`` is.

    Returns:
        0.
    """
    from rich import box
    from rich.table import Table

    from aimcore.encoders.description import described
    from aimcore.io.terminal import Terminal

    console, rows = Terminal(), described(encoder)
    if as_json:
        console.print_data(rows)
        return 0
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value if isinstance(value, str) else f"{value:,}")
    console.print(table)
    return 0
