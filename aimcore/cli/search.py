"""``aimcore search OUT QUERY``: the nearest images of stored embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimcore.cli.encoder_arguments import local_output


def add_search_arguments(commands: Any) -> None:
    """Add the command ``search``."""
    search = commands.add_parser(
        "search", help="find the images of stored embeddings that are nearest to an image or a text",
        description="Print the nearest images, and write a page with their pictures. Texts can be searched for if the "
        "embeddings are in a space that images share with texts.",
    )  # fmt: skip
    search.add_argument("embeddings", metavar="OUT", help="what aimcore embed has written (*.zarr or *.parquet)")
    search.add_argument("query", metavar="IMAGE_OR_TEXT", help="a path or URL of an image, or a text")
    search.add_argument("--num", type=int, default=12, metavar="N", help="number of images to find (default: 12)")
    search.add_argument(
        "--page", type=local_output, default=Path("search.html"), metavar="FILE", help="default: search.html"
    )
    search.add_argument("--encoder", help="the encoder of the embeddings (default: as it was named then)")
    search.add_argument("--text", action="store_true", help="search for a text, even if a file has this name")
    search.set_defaults(function=_search)


def _search(options: argparse.Namespace) -> int:
    return search_command(
        options.embeddings, options.query, options.num, options.page, options.encoder, is_text=options.text
    )


def search_command(
    url: str, query: str, number: int, page: Path, encoder: str | None = None, *, is_text: bool = False
) -> int:
    """Print the nearest images, and write the page.

    Returns:
        0.

    Raises:
        AimcoreError: the embeddings cannot be searched for the query.
    """
    from rich import box
    from rich.table import Table

    from aimcore.contracts import limits
    from aimcore.contracts.component import at_least
    from aimcore.contracts.errors import InvalidValue
    from aimcore.contracts.messages import printable
    from aimcore.io.terminal import Terminal
    from aimcore.report.search_page import label_name, write_search_page
    from aimcore.running.searching import search

    if problems := list(at_least("num", number, 1, limits.IMAGES)):
        raise InvalidValue("search", problems)
    found = search(url, query, number, encoder_text=encoder, is_text=is_text)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("similarity", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    for one in found.neighbours:
        table.add_row(f"{one.similarity:.3f}", printable(one.identifier), printable(label_name(one, found.class_names)))
    write_search_page(found, url, page)
    console = Terminal()
    console.print(table)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)
    return 0
