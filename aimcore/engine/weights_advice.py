"""What a trunk says of the file of weights that it begins with, such as how these expect pixels."""

from __future__ import annotations

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import Preprocessing
from aimcore.engine.tensor_files import read_header
from aimcore.experiment import Experiment
from aimcore.io.locations import open_location

_LARGEST_NOTE = 2**20
"""Bytes that are read of a file beside the weights."""


def weights_advice(experiment: Experiment) -> list[str]:
    """Warnings about the initial weights of a file; none where there is no such file, or it cannot be read."""
    weights = experiment.initial_weights
    if weights is None or weights.url is None:
        return []
    url = weights.url
    try:
        with open_location(url) as file:
            state = read_header(file).tensors
    except (AimcoreError, OSError, ValueError, ImportError):
        return []  # checking the weights reports that
    data = experiment.data
    pixels = Preprocessing(data.mean, data.std, data.eval_crop)
    return list(experiment.trunk.weights_advice(state, pixels, lambda name: _read_sibling(url, name)))


def _read_sibling(url: str, name: str) -> bytes | None:
    folder, slash, _ = url.rpartition("/")
    try:
        with open_location(f"{folder}{slash}{name}") as file:
            content: bytes = file.read(_LARGEST_NOTE)
            return content
    except (AimcoreError, OSError, ValueError, ImportError):
        return None
