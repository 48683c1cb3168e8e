"""Encoders as ONNX graphs, by torch's exporter. Requires the extra ``onnx``.

Shape suffixes: B batch, C channels, H W pixels, N patches, D width, T text tokens, E embedding width.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn
from torch.export import Dim

from aimcore.contracts import limits
from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.images import PatchGrid
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.traced_modules import ImageGraph, TextGraph
from aimcore.io.atomic_files import CannotWrite

ONNX = "onnx"
IMAGE_GRAPH, TEXT_GRAPH = "model.onnx", "text.onnx"
_EXAMPLE_GRID = PatchGrid(3, 5)
"""Images of any grid are traced with one whose sides differ."""
_BATCH = 2
"""Number of images that a graph is traced with; 0 and 1 would become constants."""
_LARGEST_FAULT = 1e-3
"""Largest difference, relative to the largest value, of a graph from the encoder in float32."""


class NotInONNX(AimcoreError):
    """An encoder cannot be written as an ONNX graph."""


class MissingONNX(AimcoreError):
    """An optional library that writes ONNX is needed, and cannot be imported."""


def write_graphs(encoder: Encoder, folder: Path, *, towers: bool) -> None:
    """Write ``model.onnx``, and ``text.onnx`` with the other tower; compare them with the encoder.

    ``model.onnx`` maps ``images`` ``[B, C, H, W]`` to ``tokens`` ``[B, N, D]`` after the final norm, to ``pooled``
    ``[B, D]`` as :meth:`Encoder.pool` gives it, and with two towers to ``image_embedding`` ``[B, E]`` of unit length. B
    is free. H and W are free multiples of the patch size where positions are sine-cosine (``native``), and fixed where
    they are learned. ``text.onnx`` maps ``ids`` ``[B, T]`` int64 to ``text_embedding``; T is at most the context
    length.
    The preprocessing is in the metadata of the graph. Weights above 1.5 GB are in files of their own next to it.

    Args:
        encoder: the encoder, on the CPU and in float32.
        folder: a temporary folder.
        towers: whether both towers are written.

    Raises:
        MissingONNX: a library is not installed.
        NotInONNX: torch cannot translate the encoder, or a graph gives other values.
        CannotWrite: the system refused.
    """
    require_libraries()
    grid, is_free = _grid_of(encoder)
    side = encoder.patch_size
    pixels_BCHW = _noise(_BATCH, encoder.module.num_channels, grid.rows * side, grid.columns * side)
    free: dict[int, Any] = {0: Dim("batch", max=limits.PATCHES)}
    if is_free:
        free |= {2: side * Dim("rows", min=1, max=2**12), 3: side * Dim("columns", min=1, max=2**12)}
    graph = ImageGraph(encoder, grid, is_free, towers).eval()
    names = ["tokens", "pooled", *(["image_embedding"] if towers else [])]
    _write(graph, pixels_BCHW, free, "images", names, folder / IMAGE_GRAPH, _metadata(encoder))
    if towers:
        ids_BT, context = _example_ids(encoder)
        free = {0: Dim("batch", max=limits.PATCHES)}
        if context > 2:
            free[1] = Dim("tokens", min=2, max=context)
        text = TextGraph(encoder).eval()
        _write(text, ids_BT, free, "ids", ["text_embedding"], folder / TEXT_GRAPH, _metadata(encoder))


def onnx_usage(*, towers: bool) -> str:
    """Return code that runs the graphs, for the model card."""
    lines = [
        "import onnxruntime", "",
        'image = onnxruntime.InferenceSession("FOLDER/model.onnx")',
    ]  # fmt: skip
    if towers:
        lines += [
            'text = onnxruntime.InferenceSession("FOLDER/text.onnx")',
            'tokens, pooled, image_embedding = image.run(None, {"images": images_BCHW})',
            '(text_embedding,) = text.run(None, {"ids": ids_BT})',
        ]
    else:
        lines.append('tokens, pooled = image.run(None, {"images": images_BCHW})')
    return "\n".join(lines)


def require_libraries() -> None:
    """Import the libraries that torch's exporter needs.

    Raises:
        MissingONNX: one is not installed.
    """
    for name in ("onnx", "onnxscript"):
        try:
            import_module(name)
        except ImportError as cause:
            raise MissingONNX(f"--to onnx needs the package {name} ({cause}): pip install 'aimcore[onnx]'") from cause


def _grid_of(encoder: Encoder) -> tuple[PatchGrid, bool]:
    """Return the grid that a graph is traced with, and whether any other one may be given to it."""
    own = getattr(encoder.trunk, "grid", None)
    if own is None and "native" in encoder.trunk.capabilities:
        return _EXAMPLE_GRID, True
    if own is not None:
        return PatchGrid(*own), False
    side = (encoder.image_size or limits.IMAGE_SIDE) // encoder.patch_size
    return PatchGrid(side, side), False


def _example_ids(encoder: Encoder) -> tuple[Tensor, int]:
    reads = None if encoder.objective is None else encoder.objective.text
    assert reads is not None, "two towers read text"
    tokenizer, context = reads
    ids_BT = torch.randint(tokenizer.vocabulary_size, (_BATCH, context), generator=torch.Generator().manual_seed(0))
    if tokenizer.end_id is not None:
        ids_BT[0, context // 2] = tokenizer.end_id
        ids_BT[1, -1] = tokenizer.end_id
    return ids_BT, context


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _write(
    graph: nn.Module,
    example: Tensor,
    free: Mapping[int, Any],
    input_name: str,
    output_names: list[str],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph, (example,), dynamo=True, dynamic_shapes=(dict(free),), input_names=[input_name],
                output_names=output_names, verbose=False,
            )  # fmt: skip
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        cause = _first_cause(error)  # torch's own message is about steps of its exporter, in colours
        what = f"{type(cause).__name__}: {shorten(str(cause), 500)}"
        raise NotInONNX(f"torch cannot write this encoder as an ONNX graph: {what}") from error
    assert program is not None, "torch.onnx.export returns a program with dynamo=True"
    program.model.metadata_props.update(metadata)
    try:
        program.save(str(path))
    except OSError as error:
        raise CannotWrite.because(path, error) from error
    _compare(graph, example, input_name, output_names, path)


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _compare(graph: nn.Module, example: Tensor, input_name: str, output_names: list[str], path: Path) -> None:
    """Compare the graph in a file with the module, where onnxruntime is installed.

    Raises:
        NotInONNX: the values differ.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError:
        logger.info("{}: not compared with the encoder, because onnxruntime is not installed", path.name)
        return
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    three = torch.cat([example, example[:1]])  # another batch than the graph was traced with
    outputs = [torch.from_numpy(value) for value in session.run(None, {input_name: three.numpy()})]
    with torch.no_grad():
        wanted = graph(three)
    expected = wanted if isinstance(wanted, tuple) else (wanted,)
    for name, mine, theirs in zip(output_names, expected, outputs, strict=True):
        fault = float((mine - theirs).abs().max() / mine.abs().max().clamp(min=1e-12))
        if not fault < _LARGEST_FAULT:
            raise NotInONNX(
                f"{path.name} gives other values of {name!r} than the encoder: they differ by {fault:.2g} of the "
                "largest"
            )
        logger.info(
            "{}: {!r} differs from that of the encoder by at most {:.1e} of its largest value", path.name, name, fault
        )


def _metadata(encoder: Encoder) -> dict[str, str]:
    """Return the entries of a graph's metadata."""
    (mean, std, crop), side = encoder.known_preprocessing.preprocessing, encoder.image_size
    preprocessing = {
        "values": "RGB" if len(mean) == 3 else "grey",
        "scale": "0 to 1",
        "mean": list(mean),
        "std": list(std),
        "interpolation": "bicubic, antialiased",
        "resize_short_side": None if side is None else math.ceil(side / crop),
        "center_crop": side,
        "multiple_of": encoder.patch_size,
    }
    return {
        "aimcore": version("aimcore"),
        "preprocessing": json.dumps(preprocessing),
        "source_sha256": encoder.source.sha256,
        "licence": encoder.source.licence or "unknown",
    }
