"""Advice about a file of initial weights, such as which normalisation of pixels they expect."""

from __future__ import annotations

from collections.abc import Iterator

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import Preprocessing
from aimcore.experiment import Data, Experiment
from aimcore.io.locations import open_location
from aimcore.io.tensor_files import read_header

_LARGEST_NOTE = 2**20
"""Largest number of bytes that are read of a file next to the weights."""


def weights_advice(experiment: Experiment) -> list[str]:
    """Return advice about files of initial weights for the trunk; other parts read no pixels.

    Files that cannot be read get no advice: checking the weights reports them.
    """
    files = experiment.weights_by_path.values()
    urls = [weights.url for weights in files if weights.url is not None and weights.gives_trunk]
    return [text for url in urls for text in _advice(experiment, url)]


def _advice(experiment: Experiment, url: str) -> list[str]:
    try:
        with open_location(url) as file:
            state = read_header(file).tensors
    except (AimcoreError, OSError, ValueError, ImportError):
        return []
    data = experiment.data
    pixels = Preprocessing(data.mean, data.std, data.eval_crop)
    advice = list(experiment.trunk.weights_advice(state, pixels, lambda name: _read_sibling(url, name)))
    return advice or list(_source_statistics_advice(data))


def _source_statistics_advice(data: Data) -> Iterator[str]:
    """Yield advice if pixels are normalised by the training source's own statistics, which is the default.

    Explicit numbers cannot be distinguished from the default: equal numbers are the same experiment.
    """
    own = data.train.statistics
    if own is not None and (data.mean == own.mean or data.std == own.std):
        yield (
            f"pixels are normalised by the statistics of source {data.train.name!r} "
            f"(data.mean={list(data.mean)}, data.std={list(data.std)}). Weights fitted on other data expect the "
            "normalisation that they were fitted with: give data.mean and data.std if it is another one"
        )


def _read_sibling(url: str, name: str) -> bytes | None:
    folder, slash, _ = url.rpartition("/")
    try:
        with open_location(f"{folder}{slash}{name}") as file:
            content: bytes = file.read(_LARGEST_NOTE)
            return content
    except (AimcoreError, OSError, ValueError, ImportError):
        return None
