"""Arguments of the commands that read whole sources of images."""

from __future__ import annotations

import argparse

_SOURCE = (
    "a folder, *.zarr, *.tar, *.parquet (several files by * and {000..123}, in quotes), or a source by name or as JSON "
    "as in a recipe; a path or URL. JSON must name labels and captions of *.tar, and captions of *.parquet"
)
_DESTINATION = (
    "a folder, *.zarr, or shards with a number in place of one *: 'out/train-*.tar', 'out/train-*.parquet'; on a local "
    "disk"
)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the source."""
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)


def add_destination(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names what is written."""
    parser.add_argument("destination", metavar="DESTINATION", help=_DESTINATION)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of processes."""
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: 0, a thread)")
