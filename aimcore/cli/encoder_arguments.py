"""Arguments of the commands that read images with a frozen encoder."""

from __future__ import annotations

import argparse


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the encoder."""
    parser.add_argument(
        "encoder", metavar="ENCODER",
        help="a file or folder of released weights, the folder of a run, timm:MODEL@FILE, or transformers:FOLDER",
    )  # fmt: skip


def add_image_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the options for the size of images."""
    parser.add_argument("--size", type=int, metavar="PX", help="side of the images (default: that of the encoder)")
    parser.add_argument("--area", type=int, metavar="N", help="keep aspect ratios, with at most N patches per image")
