"""``aimcore data caption SOURCE FILE --run RUN``: synthetic captions of every image of a source."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from aimcore.cli.sampling_arguments import add_sampling_arguments, sampling_given
from aimcore.cli.source_arguments import add_source


def add_caption_action(actions: Any) -> None:
    """Add ``aimcore data caption``."""
    caption = actions.add_parser(
        "caption", help="write captions of all images with a trained run",
        description="Caption every image of a source, and write a file of JSON lines. The source with_captions adds "
        "them to the images, as one more kind of captions. Images that cannot be read are left out and named. After an "
        "interruption, the same command continues. Nothing is overwritten. Prints the source for a recipe.",
        epilog="exit status: 0 every image has captions; 1 an image could not be read; 2 nothing was started; "
        "130 interrupted",
    )  # fmt: skip
    add_source(caption)
    caption.add_argument("file", type=Path, metavar="FILE", help="what is written, such as captions.jsonl")
    caption.add_argument("--run", type=Path, required=True, metavar="RUN", help="folder of the run that captions")
    add_sampling_arguments(caption)
    caption.set_defaults(function=_caption)


def _caption(options: argparse.Namespace) -> int:
    from aimcore.cli.caption import CaptionOptions, trained_captioner
    from aimcore.cli.progress_counter import Stages
    from aimcore.io.terminal import Terminal
    from aimcore.recipe.writing import plain
    from aimcore.running.caption_run import Captioning, caption_source
    from aimcore.running.image_sources import source_named

    given = CaptionOptions(**sampling_given(options))
    sampling, source = given.sampling(), source_named(options.source)
    trained, area = trained_captioner(options.run, given)
    captioning = Captioning(
        sampling=sampling, num_captions=given.num, max_tokens=given.max_tokens, prompt=given.prompt, area=area
    )
    with Stages("the same command continues") as stages:
        number, num_left_out = caption_source(trained, source, options.file, captioning, progress=stages.progress)
    left_out = f"; {num_left_out:,} images could not be read and were left out" if num_left_out else ""
    Terminal().print(f"{options.file}: captions of {number:,} images{left_out}", soft_wrap=True, highlight=False)
    read = {"name": "with_captions", "source": plain(source), "captions": str(options.file), "kind": "synthetic"}
    Terminal().print(json.dumps(read), soft_wrap=True, highlight=False)
    return int(bool(num_left_out))
