"""Export of encoders to the formats of other libraries, as a folder that is whole or absent."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from loguru import logger
from torch import Tensor

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.layouts import FileLayout, StoredModel
from aimcore.contracts.tensor_forms import NotInLayout
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.model_card import CARD_FILE, CardSection, model_card
from aimcore.encoders.onnx_graphs import ONNX, onnx_usage, require_libraries, write_graphs
from aimcore.encoders.recognition import installed_layouts
from aimcore.io.atomic_files import new_folder, write_atomically
from aimcore.io.preprocessor_files import PREPROCESSOR_FILE, preprocessor_config
from aimcore.io.safetensors_folders import write_weights

SHARD_BYTES = 5 * 10**9
"""Default size of the largest file of weights."""
_TRUNK, _PROBE = "trunk.", "probe."
ExportedType = Literal["float32", "bfloat16", "float16"]
"""Types of the numbers in exported files."""
_TYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16
}  # fmt: skip


class CannotExport(AimcoreError):
    """An encoder cannot be expressed in a format, or the folder exists already."""


@attrs.frozen(eq=False)
class _Weights:
    """What is written in a layout of files."""

    layout: FileLayout
    model: StoredModel
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    """Names of tensors of the encoder that are not in the files."""


def targets() -> tuple[str, ...]:
    """Return the names of the formats that an encoder can be exported to."""
    return (*sorted({layout.target for layout in installed_layouts() if layout.target is not None}), ONNX)


def export_encoder(
    encoder: Encoder,
    folder: Path,
    target: str,
    *,
    trunk_only: bool = False,
    shard_bytes: int | None = None,
    dtype: ExportedType | None = None,
    sections: Sequence[CardSection] = (),
) -> None:
    """Write ``encoder`` to the new ``folder`` in the format of another library, with a model card.

    Everything that the format cannot express is refused before anything is written. The folder appears when it is
    complete. A decoder, a prediction head or a classifier is left out, and the log and the card say so; two towers are
    exported together with their tokenizer.

    Args:
        encoder: the encoder.
        folder: the folder; it must not exist.
        target: one of :func:`targets`.
        trunk_only: export the trunk without the towers around it.
        shard_bytes: largest size of a file of weights; by default 5 GB. Libraries that open one file get one file.
        dtype: type of the numbers in the files; by default as in the encoder's own files, and float32 where these have
            several types. ONNX graphs are in float32.
        sections: further sections of the model card, such as recipe and scores of a run.

    Raises:
        CannotExport: the folder exists, the format is unknown, or cannot express the encoder; the message says why.
        CannotWrite: the system refused.
    """
    require_possible(folder, target)
    if target == ONNX:
        if shard_bytes is not None:
            raise CannotExport("an ONNX graph cannot be divided (--shard-size): large weights are a file next to it")
        if dtype not in (None, "float32"):
            raise CannotExport(
                f"ONNX graphs are written in float32, in which they are compared with the encoder, and not in {dtype} "
                "(--dtype): convert the graph afterwards, with onnxruntime's or onnxconverter-common's float16 tools"
            )
        _write_onnx(encoder, folder, trunk_only, sections)
    else:
        chosen = _TYPES.get(dtype or encoder.source.dtype, torch.float32)
        _write_layout(encoder, folder, target, trunk_only, shard_bytes, chosen, sections)


def require_possible(folder: Path, target: str) -> None:
    """Refuse a folder that exists, and an unknown format.

    Raises:
        CannotExport: see above.
        MissingONNX: the format is ONNX, and a library is not installed.
    """
    if os.path.lexists(folder):
        raise CannotExport(f"{folder} exists already: remove it, or export to another folder")
    if target not in targets():
        raise CannotExport(f"there is no format {target!r}: those that exist are {', '.join(targets())}")
    if target == ONNX:
        require_libraries()


def _write_layout(
    encoder: Encoder,
    folder: Path,
    target: str,
    trunk_only: bool,
    shard_bytes: int | None,
    dtype: torch.dtype,
    sections: Sequence[CardSection],
) -> None:
    weights = _expressed(encoder, target, trunk_only)
    layout, model = weights.layout, weights.model
    if shard_bytes is not None and not layout.shards:
        raise CannotExport(f"{layout.title}: its readers open one file, so it cannot be divided (--shard-size)")
    left_out = sorted({_part(one) for one in weights.left_out})
    for name in left_out:
        why = "the trunk alone was asked for" if trunk_only else f"'{layout.title}' has no place for it"
        logger.log("INFO" if trunk_only else "WARNING", "{}: {} is not exported: {}", encoder.source.name, name, why)
    model = attrs.evolve(model, image_size=encoder.image_size)
    tensors = _converted(weights.tensors, dtype)
    others = {
        **_json(_with_type(layout.config(model, encoder.known_preprocessing.preprocessing), dtype)),
        **layout.tokenizer_files(_tokenizer_files(encoder, model)),
    }
    card = model_card(
        encoder, title=layout.title, usage=layout.usage(model), library=target, dtype=type_name(dtype),
        left_out=left_out, sections=sections,
    )  # fmt: skip
    with new_folder(folder) as partial:
        write_weights(partial, tensors, (shard_bytes or SHARD_BYTES) if layout.shards else None)
        _write_others(partial, {**others, CARD_FILE: card.encode()})


def _write_onnx(encoder: Encoder, folder: Path, trunk_only: bool, sections: Sequence[CardSection]) -> None:
    towers = _has_towers(encoder) and not trunk_only
    left_out = [] if towers or encoder.objective is None else [f"what is around the trunk ({encoder.objective.name})"]
    others = {
        **_json(
            {PREPROCESSOR_FILE: preprocessor_config(encoder.known_preprocessing.preprocessing, encoder.image_size)}
        ),
        **(_tokenizer_files(encoder, encoder.model) if towers else {}),
    }
    card = model_card(
        encoder, title="ONNX", usage=onnx_usage(towers=towers), library=ONNX, dtype="float32", left_out=left_out,
        sections=sections,
    )  # fmt: skip
    with new_folder(folder) as partial:
        write_graphs(encoder, partial, towers=towers)
        _write_others(partial, {**others, CARD_FILE: card.encode()})


def _converted(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors with floating numbers of another type.

    Raises:
        CannotExport: numbers are too large for it.
    """
    found = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    wrong = [name for name, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if wrong:
        raise CannotExport(
            f"{type_name(dtype)} has no numbers as large as those in {', '.join(wrong[:3])} ({len(wrong)} tensors): "
            "choose another type (--dtype)"
        )
    return found


def _with_type(files: Mapping[str, Mapping[str, Any]], dtype: torch.dtype) -> dict[str, Mapping[str, Any]]:
    """Return the JSON files; a config that states a type of numbers (transformers') states this one."""
    return {
        name: {**content, "dtype": type_name(dtype)} if "dtype" in content else content
        for name, content in files.items()
    }


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a type of numbers: ``"float16"``."""
    return str(dtype).removeprefix("torch.")


def _expressed(encoder: Encoder, target: str, trunk_only: bool) -> _Weights:
    """Return the encoder in the first layout of ``target`` that has a place for it.

    Raises:
        CannotExport: no layout has a place for it; the message says why for each layout.
    """
    problems = []
    for found in _in_layouts(encoder, target, trunk_only):
        if isinstance(found, _Weights):
            return found
        problems.append(found)
    hint = ""
    if _has_towers(encoder) and not trunk_only:
        alone = _in_layouts(encoder, target, trunk_only=True)
        hint = ". Its trunk alone: --trunk" if any(isinstance(found, _Weights) for found in alone) else ""
    raise CannotExport(
        f"{encoder.source.name} cannot be exported to {target}, {'; '.join(dict.fromkeys(problems))}{hint}"
    )


def _in_layouts(encoder: Encoder, target: str, trunk_only: bool) -> Iterator[_Weights | str]:
    """Yield what can be written in each layout of ``target``, or why it cannot."""
    for model, state in _parts(encoder, trunk_only):
        for layout in installed_layouts():
            if layout.target == target:
                found = _in_layout(layout, model, state)
                if isinstance(found, str):
                    yield f"as {layout.title}: {found}"
                else:
                    own, tensors = found
                    left_out = tuple(name for name in encoder.state() if name not in own.read(tensors))
                    yield _Weights(own, model, tensors, left_out)


def _in_layout(
    layout: FileLayout, model: StoredModel, state: Mapping[str, Tensor]
) -> tuple[FileLayout, dict[str, Tensor]] | str:
    """Return the layout of the model's files, and their tensors; or why ``layout`` cannot express the model."""
    problems = list(layout.inexpressible(model))
    if problems:
        return ", and ".join(problems)
    own = layout.for_model(model)
    try:
        tensors = own.write(state)
    except NotInLayout as error:
        return str(error)
    return "; ".join(own.fit(tensors).problems) or (own, tensors)


def _parts(encoder: Encoder, trunk_only: bool) -> Iterator[tuple[StoredModel, Mapping[str, Tensor]]]:
    """Yield what may be exported, the most first. Two towers are never divided without being asked."""
    state, model = encoder.state(), encoder.model
    if not trunk_only:
        yield model, state
        if _has_towers(encoder):
            return
    alone: StoredModel = attrs.evolve(model, objective=None)
    if encoder.probe is not None and not trunk_only and encoder.objective is not None:
        yield alone, {name: value for name, value in state.items() if name.startswith((_TRUNK, _PROBE))}
    yield attrs.evolve(alone, probe=None), {name: value for name, value in state.items() if name.startswith(_TRUNK)}


def _has_towers(encoder: Encoder) -> bool:
    return encoder.objective is not None and "embed" in encoder.objective.skills


def _part(name: str) -> str:
    """Return the part of the model that a tensor belongs to: two names inside the trunk, else one."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "trunk" else parts[0]


def _tokenizer_files(encoder: Encoder, model: StoredModel) -> Mapping[str, bytes]:
    """Return the files of the tokenizer of two towers.

    Raises:
        CannotExport: the tokenizer cannot be written as files of other libraries.
    """
    reads = None if model.objective is None or not _has_towers(encoder) else model.objective.text
    if reads is None:
        return {}
    tokenizer, context_length = reads
    assert isinstance(tokenizer, TextTokenizer), "towers read text"
    try:
        files = tokenizer.export(context_length)
    except NotImplementedError as error:
        raise CannotExport(f"{encoder.source.name}: {error}") from error
    if not files:
        logger.warning("{}: the folder has no tokenizer, because the source has none", encoder.source.name)
    return files


def _json(files: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in files.items()}


def _write_others(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        assert name == posixpath.basename(name), "files are written into the folder"
        write_atomically(folder / name, content)
