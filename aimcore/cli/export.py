"""``aimcore export RUN_OR_FILE DIR --to FORMAT``: write an encoder for other libraries; ``--out FILE``: its trunk."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from aimcore.cli.encoder_arguments import add_encoder_settings, encoder_settings, local_output, require_place
from aimcore.contracts.errors import AimcoreError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class ExportUsage(AimcoreError):
    """The arguments of ``aimcore export`` do not go together."""


def add_export_arguments(commands: Any) -> None:
    """Add the command ``export``."""
    export = commands.add_parser(
        "export", help="write an encoder for transformers, timm, the authors' code or ONNX",
        description="Write the encoder of a run, or of a file in any known layout, to a new folder for another "
        "library: weights, config, preprocessing, tokenizer and a model card. What the format cannot express is "
        "refused before anything is written. With --out, write the trunk of a run as one file that initial_weights "
        "reads, and print the trunk as in a recipe. LoRA is merged.",
    )  # fmt: skip
    export.add_argument("source", metavar="RUN_OR_FILE", help="folder of a finished run, or a file, folder or URL")
    export.add_argument(
        "folder", nargs="?", type=local_output, metavar="DIR", help="folder to write; it must not exist"
    )
    export.add_argument("--to", metavar="FORMAT", help="apple (the authors' code), transformers, timm or onnx")
    export.add_argument(
        "--out", type=local_output, metavar="FILE", help="write the trunk of a run to this file (.safetensors) instead"
    )
    export.add_argument("--trunk", action="store_true", help="leave out the towers around the trunk")
    export.add_argument(
        "--shard-size", type=_bytes, metavar="SIZE", help="largest file of weights, such as 500MB (default: 5GB)"
    )
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"),
        help="type of the numbers in the files (default: as in the source; ONNX: float32)",
    )  # fmt: skip
    add_encoder_settings(export)
    export.add_argument("--head", metavar="FILE", help="a file with an attention probe of AIM")
    export.set_defaults(function=_export)


def _export(options: argparse.Namespace) -> int:
    if options.out is not None:
        if options.folder is not None or options.to is not None:
            raise ExportUsage("give DIR with --to FORMAT, or --out FILE, not both")
        return export_command(Path(options.source), options.out)
    if options.folder is None or options.to is None:
        raise ExportUsage(
            "give a folder and a format, such as 'aimcore export RUN_OR_FILE DIR --to transformers', or --out FILE"
        )
    require_place(options.source)
    return export_to_library(options)


def export_command(run: Path, file: Path) -> int:
    """Write the trunk's weights to ``file``, and print the trunk that has them, as in a recipe.

    Returns:
        0.

    Raises:
        AimcoreError: the run has no trained weights, or the file exists or cannot be written.
    """
    from aimcore.recipe.writing import plain
    from aimcore.running.trunk_export import export_trunk

    print(json.dumps(plain(export_trunk(run, file)), indent=2))
    return 0


def export_to_library(options: argparse.Namespace) -> int:
    """Write the encoder in the options to a folder, and print how it is opened.

    Returns:
        0.

    Raises:
        AimcoreError: it cannot be opened, expressed in the format, or written.
    """
    from aimcore.encoders.export import export_encoder, require_possible
    from aimcore.encoders.loading import load_encoder
    from aimcore.encoders.own_files import run_folder
    from aimcore.running.run_card import run_sections

    require_possible(options.folder, options.to)
    run = run_folder(options.source)
    encoder = load_encoder(options.source, **encoder_settings(options))
    export_encoder(
        encoder, options.folder, options.to, trunk_only=options.trunk, shard_bytes=options.shard_size,
        dtype=options.dtype, sections=() if run is None else run_sections(run),
    )  # fmt: skip
    print(f"{options.folder}: README.md says how it is opened")
    return 0


def _bytes(text: str) -> int:
    """Return the number of bytes of a size such as ``5GB``, for argparse."""
    found = re.fullmatch(r"(\d{1,9})\s*(KB|MB|GB|)", text.upper())
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a number of bytes such as 500MB or 5GB, got {text!r}")
    return int(found[1]) * _UNITS[found[2]]
