"""``aimcore look ENCODER IMAGE...``: one page with what an encoder does with images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aimcore.cli.encoder_arguments import add_encoder, add_image_sizes, encoder_settings, local_output, require_place


def add_look_arguments(commands: Any) -> None:
    """Add the command ``look``."""
    look = commands.add_parser(
        "look", help="write a page with what an encoder does with images",
        description="Write one page with the principal components of the tokens, the similarity of patches to a chosen "
        "one, and attention maps by block and head.",
        epilog="exit status: 0; 1 if an image could not be read; 2 nothing could be started",
    )  # fmt: skip
    add_encoder(look)
    look.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder of files, or a URL")
    look.add_argument("--page", type=local_output, default=Path("look.html"), metavar="FILE", help="default: look.html")
    add_image_sizes(look)
    look.set_defaults(function=_look)


def _look(options: argparse.Namespace) -> int:
    for place in (options.encoder, *options.images):
        require_place(place)
    return look_command(
        options.encoder, options.images, options.page, options.size, options.area, encoder_settings(options)
    )


def look_command(
    text: str,
    places: Sequence[str],
    page: Path,
    image_size: int | None = None,
    area: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> int:
    """Write the page. ``settings`` are those of :func:`aimcore.load_encoder`.

    Returns:
        0, or 1 if an image could not be read.

    Raises:
        DataNotFound: no image can be read.
        AimcoreError: the encoder cannot be opened, or cannot read images of this size.
    """
    from aimcore.contracts.errors import DataNotFound, UnreadableSample
    from aimcore.data.pictures import find_pictures, read_picture
    from aimcore.encoders.loading import load_encoder
    from aimcore.encoders.looking import look
    from aimcore.encoders.preprocessing import transform_for
    from aimcore.io.terminal import Terminal
    from aimcore.report.look_page import MOST_ATTENTION, LookedImage, write_look_page

    files, num_failed, shown = list(find_pictures(places)), 0, []
    encoder = load_encoder(text, **(settings or {}))
    transform = transform_for(encoder.trunk, encoder.transform, image_size=image_size, area=area)
    for file in files:
        try:
            rendered_CHW = transform.rendered(read_picture(file)[1])
        except UnreadableSample as failure:
            num_failed += 1
            Terminal(stderr=True).print(f"skipped: {failure}", highlight=False, soft_wrap=True)
            continue
        pixels_CHW = transform.normalized([rendered_CHW])[0]
        looked = look(encoder, pixels_CHW, most_attention=MOST_ATTENTION // len(files))
        shown.append(LookedImage(file, rendered_CHW, looked))
    if not shown:
        raise DataNotFound(
            f"no readable image in {', '.join(places)}: of a folder, the images in it are read, and not its folders"
        )
    description = f"{encoder.source.title}, {encoder.num_parameters:,} parameters, {encoder.depth} blocks"
    write_look_page(text, description, shown, page)
    Terminal().print(f"page: {page}", soft_wrap=True, highlight=False)
    return int(bool(num_failed))
