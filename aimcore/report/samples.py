"""``samples.npz`` in the folder of an experiment: a few images and what its model makes of them, for pictures.

Plain arrays, read without unpickling. Shape suffixes: B images, H W pixels, C channels, N patches in raster order,
Q queries.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.errors import InvalidSamples

SAMPLES_FILE = "samples.npz"

Array = npt.NDArray[Any]


@attrs.frozen(eq=False, kw_only=True)
class Samples:
    """What can be shown of an experiment's model; a part that is None says why in ``absent``."""

    made_from: str
    """What it was computed from; see :func:`aimcore.report.sampling.samples_of`."""
    rows: int
    columns: int
    order_N: Array | None = None
    """Raster index of the patch read at each step."""
    images_BHWC: Array | None = None
    """uint8."""
    predicted_BHWC: Array | None = None
    """uint8: every patch as the objective predicts it."""
    predicted_BN: Array | None = None
    """False where a patch was given, not predicted."""
    uses_truth: bool = False
    """Whether un-normalising the predictions took statistics of the true patches, which the picture thus leaks."""
    attention_BQN: Array | None = None
    """What each query sees of each patch, in the last block, averaged over its heads; NaN where it may not look."""
    queries_Q: Array | None = None
    """Raster index of the patch that asks."""
    attention_kind: str = ""
    """``"causal"`` or ``"bidirectional"``."""
    absent: Mapping[str, str] = attrs.field(factory=dict)
    """Why a part (``"order"``, ``"images"``, ``"predictions"``, ``"attention"``) is not there."""

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return self.rows * self.columns


def save_samples(samples: Samples, path: Path) -> None:
    """Write ``samples`` at once or not at all."""
    values = attrs.asdict(samples, recurse=False)
    absent = values.pop("absent")
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    arrays |= {f"absent.{name}": np.asarray(reason) for name, reason in absent.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    temporary.replace(path)


def read_samples(path: Path) -> Samples:
    """Read and check ``samples.npz``.

    Raises:
        FileNotFoundError: there is none.
        InvalidSamples: it is damaged, or its arrays do not fit each other.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        samples = _structured(arrays)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidSamples(path.name, f"cannot be read: {error}") from error
    problem = _problem(samples)
    if problem:
        raise InvalidSamples(path.name, problem)
    return samples


def _structured(arrays: Mapping[str, Array]) -> Samples:
    absent = {name.removeprefix("absent."): str(value) for name, value in arrays.items() if name.startswith("absent.")}
    values = {name: value for name, value in arrays.items() if not name.startswith("absent.")}
    plain: dict[str, Any] = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
    return Samples(absent=absent, **plain)


def _problem(samples: Samples) -> str | None:
    """What does not fit; None where all does."""
    shapes = {name: _shape(getattr(samples, name)) for name in attrs.fields_dict(Samples) if "_" in name}
    images, number = shapes["images_BHWC"], samples.num_patches
    if samples.order_N is not None and sorted(samples.order_N.tolist()) != list(range(number)):
        return f"order_N is no permutation of {number} patches"
    if images is not None and len(images) != 4:
        return f"images_BHWC has shape {images}"
    if samples.predicted_BHWC is not None and (images is None or shapes["predicted_BHWC"] != images):
        return f"predicted_BHWC has shape {shapes['predicted_BHWC']}, images_BHWC {images}"
    if (samples.predicted_BHWC is None) != (samples.predicted_BN is None):
        return "predicted_BHWC and predicted_BN go together"
    if samples.predicted_BN is not None and (images is None or shapes["predicted_BN"] != (images[0], number)):
        return f"predicted_BN has shape {shapes['predicted_BN']}"
    if samples.attention_BQN is None:
        return None
    queries, attention = shapes["queries_Q"], shapes["attention_BQN"]
    if queries is None or images is None or attention is None or len(attention) != 3 or attention[0] > images[0]:
        return f"attention_BQN has shape {attention}, without as many images or queries"
    return None if attention[1:] == (*queries, number) else f"attention_BQN has shape {attention}"


def _shape(value: object) -> tuple[int, ...] | None:
    return value.shape if isinstance(value, np.ndarray) else None
