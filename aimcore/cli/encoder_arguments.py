"""Arguments of the commands that open an encoder."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from aimcore.contracts.errors import LocationError
from aimcore.contracts.messages import did_you_mean, shown
from aimcore.io.locations import PROTOCOLS

_MOST_LISTED = 1000
_SETTINGS = ("num_heads", "text_heads", "head", "layout", "preprocessing")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the encoder, and what its files may not say."""
    parser.add_argument(
        "encoder", metavar="ENCODER",
        help="a file or folder of released weights, the folder of a run, timm:MODEL@FILE, or transformers:FOLDER",
    )  # fmt: skip
    add_encoder_settings(parser)


def add_encoder_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options for what files of weights may not say."""
    parser.add_argument("--num-heads", type=int, metavar="N", help="heads of the trunk (default: heads of 128 values)")
    parser.add_argument("--text-heads", type=int, metavar="N", help="heads of the text tower or decoder")
    parser.add_argument("--layout", metavar="NAME", help="the layout, if a file fits several")
    parser.add_argument(
        "--preprocessing", choices=("clip", "imagenet"), help="normalisation, if no file next to the weights states it"
    )


def encoder_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of these options, as arguments of :func:`aimcore.load_encoder`."""
    given = {name: getattr(options, name, None) for name in _SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def require_place(text: str) -> None:
    """Refuse a local file or folder that does not exist, before torch is imported.

    Raises:
        LocationError: the file or folder does not exist; the message suggests others that do.
    """
    path = Path(text).expanduser()
    if "://" in text or path.exists():
        return
    protocol, colon, rest = text.partition(":")
    if colon and protocol in PROTOCOLS:
        url = f"{protocol}://{rest.lstrip('/')}"
        raise LocationError(f"there is no file or folder {shown(text)}; a URL has two slashes there: {shown(url)}")
    if not re.match(r"[a-z_]+:", text):
        raise LocationError(f"there is no file or folder {shown(text)}{_similar(path)}")


def _similar(path: Path) -> str:
    """Suggest files and folders with similar names in the same folder."""
    with suppress(OSError):
        return did_you_mean(path.name, sorted(one.name for one in islice(path.parent.iterdir(), _MOST_LISTED)))
    return ""


def local_output(text: str) -> Path:
    """Return the path of a file or folder that is written locally, for argparse: a URL would become a folder."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a local path, got {text!r}: write it locally, then copy it")
    return Path(text)


def add_image_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options for the size of images."""
    parser.add_argument("--size", type=int, metavar="PX", help="side of the images (default: that of the encoder)")
    parser.add_argument("--area", type=int, metavar="N", help="keep aspect ratios, with at most N patches per image")
