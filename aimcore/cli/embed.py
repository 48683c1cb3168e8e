"""``aimcore embed ENCODER DATA OUT``: store the features of every image of a source."""

from __future__ import annotations

import argparse
import re
from typing import Any

from aimcore.cli.encoder_arguments import add_encoder, add_image_sizes, encoder_settings, require_place
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.messages import shown

_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def add_embed_arguments(commands: Any) -> None:
    """Add the command ``embed``."""
    embed = commands.add_parser(
        "embed", help="store the features of every image of a source",
        description="Compute features with a frozen encoder, and store them with labels and names of the images. After "
        "an interruption, the same command continues. The processes of torchrun share the work.",
        epilog="exit status: 0 all images are stored; 2 nothing could be started; 130 interrupted",
    )  # fmt: skip
    add_encoder(embed)
    embed.add_argument(
        "data", metavar="DATA",
        help="a folder of images, a zarr group, WebDataset's shards, or a source by name or as JSON as in a recipe",
    )  # fmt: skip
    embed.add_argument("out", metavar="OUT", help="what to write, *.zarr or *.parquet; a path or URL")
    what = embed.add_mutually_exclusive_group()
    what.add_argument("--tokens", action="store_true", help="store the tokens of all patches instead of one vector")
    what.add_argument(
        "--pool", choices=("mean", "class", "class_and_mean", "joint"),
        help="how tokens become one vector; joint is the space shared with texts (default: joint for an encoder with a "
        "text tower, otherwise mean)",
    )  # fmt: skip
    embed.add_argument(
        "--layers", metavar="N,N-N", default="", help="average the raw outputs of these blocks, counted from 0"
    )
    add_image_sizes(embed)
    embed.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="default: float32")
    embed.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the computation")
    embed.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per forward pass (default: 64)")
    embed.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    embed.set_defaults(function=_embed)


def _embed(options: argparse.Namespace) -> int:
    require_place(options.encoder)
    return embed_command(options)


def embed_command(options: argparse.Namespace) -> int:
    """Embed the images, and print what was stored.

    Returns:
        0.

    Raises:
        AimcoreError: the encoder or the data cannot be used, or the output holds something else.
    """
    from aimcore.cli.progress_counter import Stages
    from aimcore.encoders.embedding import Embedding
    from aimcore.engine.host_memory import keep_freed_memory
    from aimcore.io.terminal import Terminal
    from aimcore.running.embedding_run import embed_source

    settings: dict[str, Any] = {}
    if options.tokens:
        settings["reads"] = "tokens"
    elif options.pool is not None:
        settings |= {"reads": "joint"} if options.pool == "joint" else {"reads": "pooled", "pooling": options.pool}
    embedding = Embedding(
        layers=_layers(options.layers), dtype=options.dtype, precision=options.precision,
        batch_size=options.batch_size, **settings,
    )  # fmt: skip
    keep_freed_memory()  # each batch needs as much memory as the one before
    with Stages("the same command continues") as stages:
        done = embed_source(
            options.encoder, options.data, options.out, embedding,
            image_size=options.size, area=options.area, num_workers=options.workers, progress=stages.progress,
            encoder_settings=encoder_settings(options),
        )  # fmt: skip
    if done.is_complete:
        unread = f", of which {done.num_unreadable:,} could not be read" if done.num_unreadable else ""
        already = "" if done.is_new else " (they were stored already)"
        Terminal().print(f"{done.url}: {done.num_images:,} images{unread}{already}", soft_wrap=True, highlight=False)
    return 0


def _layers(text: str) -> tuple[int, ...]:
    """Parse numbers of blocks and ranges of them.

    >>> _layers("0,6-8")
    (0, 6, 7, 8)
    """
    found: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            message = f"must be numbers of blocks and ranges, such as 6-11 or 0,5,11; got {shown(text)}"
            raise InvalidValue("embed", [("layers", message)])
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(found))
