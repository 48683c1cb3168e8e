"""The options with which images are captioned, of ``aimcore caption`` and ``aimcore data caption``."""

from __future__ import annotations

import argparse
from typing import Any

_NAMES = ("sample", "temperature", "top_k", "top_p", "seed", "num", "max_tokens", "prompt", "area")


def add_sampling_arguments(caption: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    caption.add_argument("--sample", action="store_true", help="sample captions; the next five options imply this")
    caption.add_argument(
        "--temperature", type=float, metavar="T", help="values below 1 favour likely tokens (default: 1)"
    )
    caption.add_argument("--top-k", type=int, metavar="K", help="sample from the K likeliest tokens only")
    caption.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the likeliest tokens with a total probability of P"
    )
    caption.add_argument("--seed", type=int, help="seed of the sampling (default: 0)")
    caption.add_argument("--num", type=int, default=1, metavar="N", help="captions per image (default: 1)")
    caption.add_argument(
        "--max-tokens", type=int, metavar="N", help="largest length of a caption (default: that of training)"
    )
    caption.add_argument("--prompt", metavar="TEXT", help="text that every caption begins with")
    caption.add_argument(
        "--area", type=int, metavar="PATCHES",
        help="resize each image to at most this number of patches, keeping its aspect ratio (default: a square crop as "
        "in validation; for a run at native resolution, the median of its areas)",
    )  # fmt: skip


def sampling_given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of :class:`aimcore.cli.caption.CaptionOptions` that the options give."""
    return {name: getattr(options, name) for name in _NAMES}
