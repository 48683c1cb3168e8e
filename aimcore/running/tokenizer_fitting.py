"""Fitting of image tokenizers on the training images of a study or of a source, and the export of trained ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import attrs
from torch import Tensor

from aimcore.contracts.batches import View
from aimcore.contracts.errors import AimcoreError, RecipeError, RunFolderError
from aimcore.contracts.images import unpatchify
from aimcore.contracts.messages import did_you_mean
from aimcore.contracts.scales import Scale
from aimcore.contracts.sources import Source
from aimcore.contracts.tokenizers import FittingData, ImageTokenizer, TokenizerFit
from aimcore.data.loading import train_steps
from aimcore.experiment import Data, Experiment
from aimcore.recipe.reading import structured
from aimcore.recipe.writing import plain
from aimcore.registry.plugins import installed
from aimcore.running.study_files import load_study
from aimcore.running.trained_model import load_trained

_LARGEST_BATCH = 64
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
    what: str, *, scale: Scale = "small", only: str | None = None, image_size: int = 224, patch_size: int = 14
) -> TokenizerImages:
    """Return the images that a command names.

    Args:
        what: a study (.py), a recipe (.json, .yaml), the name of a source, or a source as JSON:
            ``{"name": "image_folder", "url": "photos"}``.
        scale: the scale of the study.
        only: the experiment of the study; by default its first.
        image_size: side of the crops in pixels, for a source.
        patch_size: side of a patch in pixels, for a source.

    Raises:
        InvalidStudy: the study cannot be read.
        CannotFit: it has no such experiment.
        RecipeError: there is no such source, or its fields are invalid.
        InvalidValue: the sizes are invalid.
    """
    if Path(what).suffix in (".py", ".json", ".yaml", ".yml") and not what.lstrip().startswith("{"):
        return images_of_experiment(_experiment(load_study(Path(what), scale).experiments, only, what))
    given: Any = json.loads(what) if what.lstrip().startswith("{") else {"name": what}
    source = structured(given, Source, installed(), {})
    if image_size % patch_size:
        raise CannotFit(f"images of {image_size} px do not divide into patches of {patch_size} px")
    data = Data(train=source, validation=source, batch_size=_LARGEST_BATCH, image_size=image_size)
    return TokenizerImages(data, patch_size)


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
        raise CannotFit(f"{name!r} is not a tokenizer that is fitted{did_you_mean(name, fitted)}; there are {fitted}")
    return cast(TokenizerFit, structured(dict(_change(change) for change in changes), kind, installed(), {}))


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
        self._progress = progress

    def views(self, num_images: int, pixels_per_patch: int | None = None) -> Iterator[Tensor]:
        """Yield views of the first crops, in batches of bounded size."""
        size = min(_LARGEST_BATCH, self._data.batch_size, num_images)
        data = attrs.evolve(cast(Any, self._data), batch_size=size)
        views = () if pixels_per_patch is None else (View(key=_VIEW, pixels_per_patch=pixels_per_patch),)
        steps = train_steps(
            data, data.train.open(), patch_size=self.patch_size, views=views, seed=0, num_steps=-(-num_images // size)
        )
        with closing(steps):
            for number, (batch,) in enumerate(steps):
                images = batch.images
                pixels_BCHW = unpatchify(images.unit_patches_BNF, images.grid, images.patch_size)
                view_BCHW = pixels_BCHW if pixels_per_patch is None else batch.views[_VIEW]
                yield view_BCHW[: num_images - number * size]

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
