"""Advice about a file of initial weights, such as which normalisation of pixels they expect."""

from __future__ import annotations

from collections.abc import Iterator

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import Preprocessing
from aimcore.engine.tensor_files import read_header
from aimcore.experiment import Data, Experiment
from aimcore.io.locations import open_location

_LARGEST_NOTE = 2**20
"""Bytes that are read of a file beside the weights."""


def weights_advice(experiment: Experiment) -> list[str]:
    """Warnings about files of initial weights for the trunk; none about other parts, which read no pixels.

    There are none either where a file cannot be read: checking the weights reports that.
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
    """Advice where pixels are normalised by the training source's own statistics, which is the default.

    Whether they were given or are the default cannot be seen: equal numbers are the same experiment.
    """
    own = data.train.statistics
    if own is not None and (data.mean == own.mean or data.std == own.std):
        yield (
            f"pixels are normalised by the statistics that source {data.train.name!r} brings "
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
