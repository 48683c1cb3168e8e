"""``aimcore data convert SOURCE DESTINATION``: the samples of a source in another layout."""

from __future__ import annotations

import argparse
import json
from typing import Any

from aimcore.cli.source_arguments import add_destination, add_source, add_workers


def add_convert_action(actions: Any) -> None:
    """Add ``aimcore data convert``."""
    convert = actions.add_parser(
        "convert", help="write a source in another layout",
        description="Write a source as a folder of images, WebDataset's shards, Parquet files or a zarr group, with "
        "labels and captions. Image files are copied without loss. Images that cannot be decoded are left out and named"
        ". After an interruption, the same command continues. Nothing is overwritten. Prints the source for a recipe.",
        epilog="exit status: 0 everything is written; 2 nothing was started, or the data was refused; 130 interrupted",
    )  # fmt: skip
    add_source(convert)
    add_destination(convert)
    convert.add_argument("--shard", type=int, default=1000, metavar="N", help="samples per shard (default: 1000)")
    add_workers(convert)
    convert.add_argument(
        "--max-unreadable", type=int, default=100, metavar="N", help="unreadable images to leave out (default: 100)"
    )
    convert.add_argument("--json", action="store_true", help="print an object with counts and the source")
    convert.set_defaults(function=_convert)


def _convert(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.io.terminal import Terminal
    from aimcore.recipe.writing import plain
    from aimcore.running.converting import convert
    from aimcore.running.image_sources import destination_named, source_named

    source, destination = source_named(options.source), destination_named(options.destination)
    with Stages("the same command continues") as stages:
        done = convert(
            source, destination, per_part=options.shard, num_workers=options.workers,
            max_unreadable=options.max_unreadable, progress=stages.progress,
        )  # fmt: skip
    console, recipe = Terminal(), plain(done.source)
    if options.json:
        console.print_data(
            {"num_samples": done.num_samples, "num_unreadable": done.num_unreadable, "unreadable": done.unreadable,
             "source": recipe}
        )  # fmt: skip
        return 0
    for failure in done.unreadable:
        Terminal(stderr=True).print(f"left out: {failure}", highlight=False, soft_wrap=True)
    unread = f"; {done.num_unreadable:,} could not be read and were left out" if done.num_unreadable else ""
    console.print(f"{options.destination}: {done.num_samples:,} samples{unread}", soft_wrap=True, highlight=False)
    console.print(json.dumps(recipe), soft_wrap=True, highlight=False)
    return 0
