"""Fitting of image tokenizers on the training images of a study or of a source, and the export of trained ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import attrs
from loguru import logger
from torch import Tensor

from aimcore.contracts.batches import View
from aimcore.contracts.errors import AimcoreError, RecipeError, RunFolderError
from aimcore.contracts.images import unpatchify
from aimcore.contracts.messages import did_you_mean, shown
from aimcore.contracts.scales import Scale
from aimcore.contracts.sources import Source
from aimcore.contracts.tokenizers import FittingData, ImageTokenizer, TokenizerFit
from aimcore.data.loading import train_steps
from aimcore.experiment import Augmentation, Data, Experiment
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed
from aimcore.running.study_files import load_study
from aimcore.running.trained_model import load_trained

_LARGEST_BATCH = 64
_MANY_CROPS = 20
"""Crops per image in one pass of a fit, from which on the log says so."""
_VIEW = "tokenizer"
Progress = Callable[[str, int, int], None]
"""Receives what is done, the number of finished units, and the number of all."""


class CannotFit(AimcoreError):
    """There is no such tokenizer, or it is not fitted like this, or the images are not given completely."""


@attrs.frozen
class TokenizerImages:
    """Images for a tokenizer, and the size of their patches."""

    data: Data
    patch_size: int

    @property
    def record(self) -> str:
        """These images as JSON, for the tokenizer's file."""
        return json.dumps({"data": plain(self.data), "patch_size": self.patch_size}, sort_keys=True)

    @classmethod
    def of_record(cls, record: str, path: str) -> TokenizerImages:
        """Return the images that a tokenizer's file names.

        Raises:
            CannotFit: the file names none, or not such that they can be read.
        """
        try:
            found = json.loads(record)
            return cls(structured(found["data"], Data, installed(), {}), int(found["patch_size"]))
        except (ValueError, RecursionError, TypeError, KeyError) as cause:
            raise CannotFit(
                f"{path} does not say which images it was fitted on ({type(cause).__name__}): name a study or a source "
                "with --on"
            ) from cause


def images_of_experiment(experiment: Experiment) -> TokenizerImages:
    """Return the images of an experiment, as square crops."""
    return TokenizerImages(_square(experiment.data), experiment.trunk.patch_size)


def images_named(
    what: str,
    *,
    scale: Scale = "small",
    only: str | None = None,
    image_size: int = 224,
    patch_size: int = 14,
    augmentation: Augmentation | None = None,
) -> TokenizerImages:
    """Return the images that a command names.

    Args:
        what: a study (.py), a recipe (.json, .yaml), the name of a source, or a source as JSON:
            ``{"name": "image_folder", "url": "photos"}``.
        scale: the scale of the study.
        only: the experiment of the study; by default its first.
        image_size: side of the crops in pixels, for a source.
        patch_size: side of a patch in pixels, for a source.
        augmentation: how training images of a source are cropped; None crops as in an experiment by default.

    Raises:
        InvalidStudy: the study cannot be read.
        CannotFit: it has no such experiment, or the sizes do not fit each other.
        RecipeError: there is no such source, or its fields are invalid.
        InvalidValue: the sizes are invalid.
    """
    if Path(what).suffix in (".py", ".json", ".yaml", ".yml") and not what.lstrip().startswith("{"):
        return images_of_experiment(_experiment(load_study(Path(what), scale).experiments, only, what))
    source = _source(what)
    if image_size % patch_size:
        raise CannotFit(f"images of {image_size} px do not divide into patches of {patch_size} px")
    data = Data(
        train=source, validation=source, batch_size=_LARGEST_BATCH, image_size=image_size,
        augmentation=augmentation or Augmentation(),
    )  # fmt: skip
    return TokenizerImages(data, patch_size)


def _source(what: str) -> Source:
    if what.lstrip().startswith("{"):
        try:
            given: Any = json.loads(what)
        except (ValueError, RecursionError) as cause:
            raise RecipeError([("", f"is not valid JSON ({cause}): {shown(what)}")], owner="source") from cause
    elif Path(what).is_dir():
        written = json.dumps({"name": "image_folder", "url": what})
        raise CannotFit(f"{shown(what)} is a folder, not a source: for its images, write '{written}'")
    else:
        given = {"name": what}
    return cast(Source, _structured(given, Source, "source"))


def _structured(given: Any, kind: type[Any], owner: str) -> Any:
    """Convert plain values to a ``kind``; messages begin with ``owner``, because there is no recipe."""
    try:
        return structured(given, kind, installed(), {})
    except RecipeError as error:
        raise RecipeError(error.problems, owner=owner) from error


def _experiment(experiments: Sequence[Experiment], only: str | None, what: str) -> Experiment:
    names = [experiment.name for experiment in experiments]
    if only is not None and only not in names:
        raise CannotFit(f"{what} has no experiment {only!r}{did_you_mean(only, names)}; there are {', '.join(names)}")
    return experiments[0 if only is None else names.index(only)]


def _square(data: Data) -> Data:
    return cast(Data, attrs.evolve(cast(Any, data), native=None))


def fit_settings(name: str, changes: Sequence[str]) -> TokenizerFit:
    """Return the settings of a fit of the tokenizer ``name``, with each ``FIELD=VALUE`` of ``changes``.

    Raises:
        CannotFit: there is no such tokenizer, or it is not fitted by a command.
        RecipeError: there is no such field, or a value is invalid.
    """
    registry = installed().registry("tokenizers")
    fitted = [name for name, cls in registry.items() if getattr(cls, "fitting", None) is not None]
    kind = getattr(registry.get(name), "fitting", None) if name in registry else None
    if kind is None:
        raise CannotFit(
            f"{name!r} is not a tokenizer that this command fits{did_you_mean(name, fitted)}; it fits "
            f"{', '.join(fitted)}. 'aimcore tokenizer export' writes one that an objective has trained"
        )
    return cast(TokenizerFit, _structured(dict(map(_change, changes)), kind, "--set"))


def _change(change: str) -> tuple[str, Any]:
    field, separator, text = change.partition("=")
    if not separator:
        raise RecipeError([(change, "a change is written FIELD=VALUE")], owner="--set")
    try:
        return field.strip(), json.loads(text)
    except ValueError:
        return field.strip(), text


def fit_tokenizer(images: TokenizerImages, fit: TokenizerFit, path: Path, progress: Progress) -> None:
    """Fit a tokenizer to training crops of ``images``, and write its file to ``path``.

    Raises:
        AimcoreError: the images cannot be read or do not suffice, or the file cannot be written.
    """
    fit.fit(_StreamedImages(images, progress), path)


class _StreamedImages(FittingData):
    """Training crops of a source, read again in each pass."""

    def __init__(self, images: TokenizerImages, progress: Progress) -> None:
        self.patch_size = images.patch_size
        self.num_channels = len(images.data.mean)
        self.record = images.record
        self._data = images.data
        self._source = images.data.train.open()
        self._progress = progress
        self._said = False

    def views(self, num_images: int, pixels_per_patch: int | None = None) -> Iterator[Tensor]:
        """Yield views of the first crops, in batches of bounded size."""
        self._say_repeats(num_images)
        size = min(_LARGEST_BATCH, self._data.batch_size, num_images)
        data = attrs.evolve(cast(Any, self._data), batch_size=size)
        views = () if pixels_per_patch is None else (View(key=_VIEW, pixels_per_patch=pixels_per_patch),)
        steps = train_steps(
            data, self._source, patch_size=self.patch_size, views=views, seed=0, num_steps=-(-num_images // size)
        )
        with closing(steps):
            for number, (batch,) in enumerate(steps):
                images = batch.images
                pixels_BCHW = unpatchify(images.unit_patches_BNF, images.grid, images.patch_size)
                view_BCHW = pixels_BCHW if pixels_per_patch is None else batch.views[_VIEW]
                yield view_BCHW[: num_images - number * size]

    def _say_repeats(self, num_images: int) -> None:
        """Say once that few images are read very often, which takes longer than their number suggests."""
        each = num_images / max(1, len(self._source))
        if each >= _MANY_CROPS and not self._said:
            logger.info(
                "each pass reads {:,} crops of {:,} images, {:,.0f} of each; the settings of the fit say how many",
                num_images, len(self._source), each,
            )  # fmt: skip
            self._said = True

    def progress(self, doing: str, done: int, total: int) -> None:
        self._progress(doing, done, total)


def export_tokenizer(run: Path, path: Path) -> type[ImageTokenizer]:
    """Write the image tokenizer that a finished run trained to ``path``, and return its class.

    Raises:
        RunFolderError: the run has no weights, or trained no tokenizer.
        CannotWrite: the system refuses to write the file.
    """
    trained = load_trained(run)
    try:
        return trained.module.export_tokenizer(path, images_of_experiment(trained.experiment).record)
    except NotImplementedError as cause:
        name = trained.experiment.objective.name
        raise RunFolderError(f"{run} was trained with objective {name!r}, which trains no image tokenizer") from cause


def convert_tokenizer(name: str, files: Sequence[str], path: Path) -> None:
    """Convert published files of the tokenizer ``name`` to its file ``path``.

    Raises:
        CannotFit: there is no such tokenizer, or it converts no files.
        AimcoreError: the files cannot be read, or hold something else.
    """
    known = tokenizer_classes()
    if name not in known:
        raise CannotFit(f"unknown image tokenizer {name!r}{did_you_mean(name, [*known])}; there are {', '.join(known)}")
    try:
        known[name].convert(files, path)
    except NotImplementedError as cause:
        raise CannotFit(str(cause)) from cause


def tokenizer_classes() -> Mapping[str, type[ImageTokenizer]]:
    """Return the installed image tokenizers by name."""
    registry = installed().registry("tokenizers")
    return {name: cls for name, cls in registry.items() if issubclass(cls, ImageTokenizer)}
