"""``samples.npz`` in the folder of an experiment: a few images, with predictions and attention of its model.

Plain arrays, read without unpickling. Shape suffixes: B images, H W pixels, C channels, N patches in raster order,
Q queries.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from aimcore.contracts.errors import InvalidSamples
from aimcore.io.atomic_files import write_atomically

Array = npt.NDArray[Any]


@attrs.frozen(eq=False, kw_only=True)
class SampleArrays:
    """Images, predictions and attention of an experiment's model. If a part is None, ``absent`` has the reason."""

    made_from: str
    """The recipe and step it was computed from; see :func:`aimcore.report.sample_making.samples_of`."""
    rows: int
    columns: int
    order_N: Array | None = None
    """Raster index of the patch read at each step."""
    order_is_own: bool = False
    """Whether every sample has an order of its own; ``order_N`` is then that of sample number 0."""
    images_BHWC: Array | None = None
    """uint8."""
    predicted_BHWC: Array | None = None
    """uint8: the objective's prediction of every patch."""
    predicted_BN: Array | None = None
    """False where a patch was given, not predicted."""
    uses_truth: bool = False
    """Whether the predictions were un-normalised with statistics of the true patches, which the picture thus leaks."""
    decoded_BHWC: Array | None = None
    """uint8: the true codes, decoded, if the target is a code: the best that predictions can be."""
    code_counts_K: Array | None = None
    """How often each code occurs in validation images, if the target is a code."""
    attention_BQN: Array | None = None
    """Attention of each query to each patch, in the last block, averaged over its heads; NaN where it is masked."""
    queries_Q: Array | None = None
    """Raster index of the query's patch."""
    attention_kind: str = ""
    """``"causal"`` or ``"bidirectional"``."""
    absent: Mapping[str, str] = attrs.field(factory=dict)
    """Why a part (``"order"``, ``"images"``, ``"predictions"``, ``"attention"``) is missing."""

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return self.rows * self.columns


def save_samples(samples: SampleArrays, path: Path) -> None:
    """Write ``samples`` atomically."""
    values = attrs.asdict(samples, recurse=False)
    absent = values.pop("absent")
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    arrays |= {f"absent.{name}": np.asarray(reason) for name, reason in absent.items()}
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


def read_samples(path: Path) -> SampleArrays:
    """Read and check ``samples.npz``.

    Raises:
        FileNotFoundError: the file does not exist.
        InvalidSamples: it is damaged, or its arrays do not match each other.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        samples = _structured(arrays)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        # numpy's own message for unknown content recommends to unpickle it.
        reason = "it is damaged, or contains pickled objects, which are never read" if "pickle" in str(error) else error
        raise InvalidSamples(path.name, f"cannot be read: {reason}") from error
    problem = _problem(samples)
    if problem:
        raise InvalidSamples(path.name, problem)
    return samples


def _structured(arrays: Mapping[str, Array]) -> SampleArrays:
    absent = {name.removeprefix("absent."): str(value) for name, value in arrays.items() if name.startswith("absent.")}
    values = {name: value for name, value in arrays.items() if not name.startswith("absent.")}
    plain: dict[str, Any] = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
    return SampleArrays(absent=absent, **plain)


def _problem(samples: SampleArrays) -> str | None:
    """Return why the arrays do not match, or None."""
    number, images = samples.num_patches, samples.images_BHWC
    if min(samples.rows, samples.columns) < 1:
        return f"a grid of {samples.rows} x {samples.columns} patches"
    if samples.order_N is not None and sorted(samples.order_N.tolist()) != list(range(number)):
        return f"order_N is not a permutation of {number} patches"
    if images is None:
        return None if samples.predicted_BHWC is samples.attention_BQN is None else "there are no images_BHWC"
    if images.ndim != 4 or images.shape[1] % samples.rows or images.shape[2] % samples.columns:
        return f"images_BHWC has shape {images.shape}, for {samples.rows} x {samples.columns} patches"
    return (
        _problem_of_codes(samples, images.shape)
        or _problem_of_predictions(samples, images.shape)
        or _problem_of_attention(samples, len(images))
    )


def _problem_of_codes(samples: SampleArrays, shape: tuple[int, ...]) -> str | None:
    decoded, counts = samples.decoded_BHWC, samples.code_counts_K
    if decoded is not None and decoded.shape != shape:
        return f"decoded_BHWC has shape {decoded.shape}, images_BHWC {shape}"
    if counts is not None and (counts.ndim != 1 or counts.dtype != np.int64 or counts.min(initial=0) < 0):
        return f"code_counts_K has shape {counts.shape} and type {counts.dtype}"
    return None


def _problem_of_predictions(samples: SampleArrays, shape: tuple[int, ...]) -> str | None:
    predicted, scored = samples.predicted_BHWC, samples.predicted_BN
    if predicted is None or scored is None:
        return None if predicted is scored else "predicted_BHWC and predicted_BN require each other"
    if predicted.shape != shape:
        return f"predicted_BHWC has shape {predicted.shape}, images_BHWC {shape}"
    if scored.shape != (shape[0], samples.num_patches) or scored.dtype != bool:
        return f"predicted_BN has shape {scored.shape} and type {scored.dtype}"
    return None


def _problem_of_attention(samples: SampleArrays, num_images: int) -> str | None:
    attention, queries = samples.attention_BQN, samples.queries_Q
    if attention is None or queries is None:
        return None if attention is queries else "attention_BQN and queries_Q require each other"
    if attention.ndim != 3 or len(attention) > num_images or attention.shape[1:] != (len(queries), samples.num_patches):
        return f"attention_BQN has shape {attention.shape}"
    if not set(queries.tolist()) <= set(range(samples.num_patches)):
        return f"queries_Q is {queries.tolist()}, of {samples.num_patches} patches"
    return None
