"""``aimcore inspect FILE``: what a file of weights holds, in a table."""

from __future__ import annotations

import argparse
from typing import Any


def add_inspect_arguments(commands: Any) -> None:
    """Add the command ``inspect``."""
    inspect = commands.add_parser(
        "inspect", help="show what a file of weights holds",
        description="Show what a file of weights holds: its layout, the model, the preprocessing that it expects, its "
        "size, hash and licence. The file must fit a layout completely, and hold finite numbers. Exit status: 0, or 2 "
        "if it cannot be opened.",
    )  # fmt: skip
    inspect.add_argument("file", metavar="FILE", help="a file, a folder, a run's folder, or a URL (hf://OWNER/NAME)")
    inspect.add_argument("--num-heads", type=int, metavar="N", help="heads of the trunk (default: heads of 128 values)")
    inspect.add_argument("--text-heads", type=int, metavar="N", help="heads of the text tower or decoder")
    inspect.add_argument("--head", metavar="FILE", help="a file with an attention probe of AIM")
    inspect.add_argument("--layout", metavar="NAME", help="the layout, if a file fits several")
    inspect.add_argument("--json", action="store_true", help="print an object instead of a table")
    inspect.set_defaults(function=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from aimcore.encoders import load_encoder

    encoder = load_encoder(
        options.file, num_heads=options.num_heads, text_heads=options.text_heads, head=options.head,
        layout=options.layout,
    )  # fmt: skip
    return inspect_command(encoder, as_json=options.json)


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
