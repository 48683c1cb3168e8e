"""``aimcore data``: commands on whole sources of images. Each action has a file of its own."""

from __future__ import annotations

from typing import Any

from aimcore.cli.data_caption import add_caption_action
from aimcore.cli.data_convert import add_convert_action
from aimcore.cli.data_filter import add_filter_action
from aimcore.cli.data_inspect import add_inspect_action


def add_data_arguments(commands: Any) -> None:
    """Add ``aimcore data`` with its own subcommands."""
    data = commands.add_parser("data", help="convert, inspect, filter or caption a source of images")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    add_convert_action(actions)
    add_filter_action(actions)
    add_inspect_action(actions)
    add_caption_action(actions)
