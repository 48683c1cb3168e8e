"""``aimcore caption RUN IMAGE...``: caption images with a trained run."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, cast

import attrs
from rich import box
from rich.table import Table

from aimcore.contracts import limits
from aimcore.contracts.batches import Sample
from aimcore.contracts.component import at_least
from aimcore.contracts.errors import AimcoreError, InvalidValue, UnreadableSample
from aimcore.contracts.messages import printable
from aimcore.contracts.objectives import Objective
from aimcore.data.rendering import Renderer, Rendering
from aimcore.evaluation.caption_generation import Caption, Sampling
from aimcore.experiment import Experiment
from aimcore.io.terminal import Terminal
from aimcore.running.trained_model import TrainedModel

_BATCH = 32
_MOST_CAPTIONS = 10_000


class CannotCaption(AimcoreError):
    """The run's objective writes no captions, or cannot read the images in this form, or no image is readable."""


@attrs.frozen(kw_only=True)
class CaptionOptions:
    """Which captions are written, and how they are printed."""

    sample: bool = False
    """Sample tokens. Setting one of the four fields below, or asking for several captions, implies this."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    num: int = 1
    """Captions per image."""
    max_tokens: int | None = None
    prompt: str | None = None
    """Text that every caption begins with."""
    area: int | None = None
    """Largest number of patches per image; the aspect ratio is kept. By default, a run at native resolution uses the
    median of its areas, and any other run uses square crops as in validation."""
    as_json: bool = False

    def sampling(self) -> Sampling | None:
        """Return how tokens are sampled; None selects the likeliest token.

        Raises:
            InvalidValue: a number is out of its range.
        """
        from aimcore.evaluation.caption_generation import Sampling

        wrong = [problem for name, value, most in self._counts() for problem in at_least(name, value, 1, most)]
        if wrong:
            raise InvalidValue("caption", wrong)
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Sampling(**changes) if self.sample or changes or self.num > 1 else None

    def _counts(self) -> Iterator[tuple[str, int, int]]:
        """Yield the names, values and upper bounds of the fields that are counts."""
        yield "num", self.num, _MOST_CAPTIONS
        if self.max_tokens is not None:
            yield "max_tokens", self.max_tokens, limits.PATCHES
        if self.area is not None:
            yield "area", self.area, limits.PATCHES


@attrs.frozen(eq=False)
class _Picture:
    """An image that was read and rendered at once, because a folder of decoded images may not fit into memory."""

    file: str
    rendering: Rendering
    key: int
    """Derived from the file's content, so that sampled captions depend on nothing else."""


def caption_command(run: Path, places: Sequence[str], options: CaptionOptions) -> int:
    """Print captions of images.

    Args:
        run: the folder of a finished run.
        places: paths, folders or URLs of images.
        options: see :class:`CaptionOptions`.

    Returns:
        0, or 1 if an image could not be read.

    Raises:
        CannotCaption: the objective writes no captions; ``area`` is given but the trunk reads squares only; or no image
            is readable.
        RunFolderError, CheckpointDamaged, RecipeError: the run cannot be used.
    """
    from aimcore.data.rendering import renderer_of

    sampling = options.sampling()
    trained, area = trained_captioner(run, options)
    console, skipped = Terminal(), list[UnreadableSample]()
    renderer = renderer_of(trained.experiment.data, trained.experiment.trunk.patch_size, area)
    pictures = list(_read(places, renderer, skipped))
    for failure in skipped:
        Terminal(stderr=True).print(f"skipped {failure}", highlight=False, soft_wrap=True)
    if not pictures:
        raise CannotCaption(f"no readable image in {', '.join(places)}")
    captions = _captions(trained, pictures, renderer, sampling, options)
    if options.as_json:
        console.print_data([_record(*one) for one in zip(pictures, captions, strict=True)])
    else:
        console.print(captions_table(trained, [picture.file for picture in pictures], captions))
    return int(bool(skipped))


def trained_captioner(run: Path, options: CaptionOptions) -> tuple[TrainedModel, int | None]:
    """Load the run; return it with the area that images are resized to, or None for square crops.

    Raises:
        CannotCaption, RunFolderError, CheckpointDamaged, RecipeError: as :func:`caption_command`.
    """
    from aimcore.running.recorded_recipes import experiment_of
    from aimcore.running.trained_model import load_trained

    experiment = experiment_of(run)
    _require_captions(run, experiment)
    _require_room(experiment, options)
    area = _area(run, experiment, options)
    return load_trained(run, experiment), area


def _require_captions(run: Path, experiment: Experiment) -> None:
    if "caption" not in experiment.objective.skills:
        raise CannotCaption(
            f"{run} was trained with objective {experiment.objective.name!r}, which writes no captions; those that do: "
            f"{', '.join(_captioners())}"
        )


def _require_room(experiment: Experiment, options: CaptionOptions) -> None:
    """Refuse a prompt that fills the context, before weights are read."""
    from aimcore.evaluation.prompts import prompt_ids

    if options.prompt is not None and experiment.objective.text is not None:
        prompt_ids(options.prompt, *experiment.objective.text)


def _area(run: Path, experiment: Experiment, options: CaptionOptions) -> int | None:
    """Return the area that images are resized to, or None for square crops."""
    native = experiment.data.native
    if options.area is not None and "native" not in experiment.trunk.capabilities:
        raise CannotCaption(
            f"{run} reads only squares of {experiment.data.image_size} px, so --area cannot be used: its trunk "
            f"{experiment.trunk.name!r} has positions for that size only"
        )
    return options.area or (None if native is None else native.typical_area)


def _captioners() -> list[str]:
    from aimcore.registry.plugins import installed

    known = installed().registries["objectives"].items()
    examples = {name: cast("Sequence[Objective]", kind.examples()) for name, kind in known}
    return [name for name, some in examples.items() if any("caption" in one.skills for one in some)]


def _read(places: Sequence[str], renderer: Renderer, skipped: list[UnreadableSample]) -> Iterator[_Picture]:
    from aimcore.data.pictures import find_pictures

    for file in find_pictures(places):
        try:
            yield _picture(file, renderer)
        except UnreadableSample as failure:
            skipped.append(copy(failure))  # without its traceback, which would keep the decoded image in memory


def _picture(file: str, renderer: Renderer) -> _Picture:
    from aimcore.data.pictures import read_picture

    content, pixels_CHW = read_picture(file)
    return _Picture(
        file, renderer.for_evaluation(Sample(pixels_CHW, file)), int.from_bytes(hashlib.sha256(content).digest()[:7])
    )


def _captions(
    trained: TrainedModel,
    pictures: Sequence[_Picture],
    renderer: Renderer,
    sampling: Sampling | None,
    options: CaptionOptions,
) -> list[list[Caption]]:
    """Return the captions of each image."""
    import torch

    from aimcore.evaluation.caption_generation import generate

    experiment = trained.experiment
    assert experiment.objective.text is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained.module.to(device)
    written: list[list[Caption]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("once")
        for first in range(0, len(pictures), _BATCH):
            batch = pictures[first : first + _BATCH]
            images = renderer.together([one.rendering for one in batch]).images
            draws = [
                generate(
                    trained.module,
                    images.to(device),
                    *experiment.objective.text,
                    sampling,
                    keys=[one.key for one in batch],
                    draw=draw,
                    max_tokens=options.max_tokens,
                    prompt=options.prompt,
                )
                for draw in range(options.num)
            ]
            written += [list(one) for one in zip(*draws, strict=True)]
    for note in dict.fromkeys(str(one.message) for one in caught):
        Terminal(stderr=True).print(f"note: {note}", highlight=False)
    return written


def captions_table(trained: TrainedModel, files: Sequence[str], captions: Sequence[Sequence[Caption]]) -> Table:
    """Return a table with a row per caption. A caption that reached the largest length ends in dots."""
    title = f"{trained.experiment.name} ({trained.experiment.objective.name}, {trained.step} steps)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("file", overflow="fold", ratio=1)
    table.add_column("caption", overflow="fold", ratio=2)
    for file, of_file in zip(files, captions, strict=True):
        for number, caption in enumerate(of_file):
            # A model may write any character, and a line break would look like another caption.
            text = printable(caption.text) + ("" if caption.ended else " ...")
            table.add_row("" if number else printable(file), text)
    return table


def _record(picture: _Picture, captions: Sequence[Caption]) -> dict[str, Any]:
    return {"file": picture.file, "captions": [{"text": one.text, "ended": one.ended} for one in captions]}
