"""What an encoder is, in rows for a table."""

from __future__ import annotations

from collections.abc import Sequence

from aimcore.contracts.images import PatchGrid
from aimcore.encoders.encoder import Encoder
from aimcore.io.locations import without_secrets
from aimcore.recipe.writing import plain

_SHOWN = ("width", "depth", "num_heads", "patch_size", "norm", "norm_eps", "ffn", "ffn_width", "positions", "grid")


def described(encoder: Encoder) -> dict[str, str | int]:
    """Return what ``encoder`` is: texts and whole numbers by name, in the order of a table."""
    source, known = encoder.source, encoder.known_preprocessing
    mean, std, eval_crop = known.preprocessing
    size = "native resolution" if encoder.image_size is None else f"{encoder.image_size} px"
    rows: dict[str, str | int] = {
        "holds": source.title,
        "layout": source.layout,
        "files": ", ".join(without_secrets(file.url) for file in source.files),
        "bytes": source.num_bytes,
        "numbers": source.dtype,
        "sha256": source.sha256,
        "licence": source.licence or "unknown",
        **_library(encoder),
        "trunk": _trunk(encoder),
        "parameters of the trunk": encoder.num_parameters,
        "images": f"{size}, mean {_numbers(mean)}, std {_numbers(std)}, crop {eval_crop:g} ({known.source})",
        "other resolutions": _resolutions(encoder),
    }
    if encoder.objective is not None:
        rows["other parts"] = f"{encoder.objective.name}: {_parts(encoder)}"
        if encoder.objective.text is not None:
            tokenizer, context_length = encoder.objective.text
            number = f"{tokenizer.vocabulary_size:,}"
            rows["texts"] = f"at most {context_length} tokens, of {number}; tokenizer {tokenizer.name}"
    if encoder.probe is not None:
        rows["probe"] = f"reads blocks {', '.join(map(str, encoder.probe_layers))}, averaged"
    if encoder.objective is None and "library" not in rows:
        rows["not in the file"] = "a decoder or prediction head: pre-training continues with fresh ones"
    return rows


def _trunk(encoder: Encoder) -> str:
    module = encoder.module
    fields = {
        "width": module.width, "depth": module.depth, "num_heads": getattr(module, "num_heads", None),
        "patch_size": module.patch_size,
    } | plain(encoder.trunk)  # fmt: skip
    stated = [f"{name} {fields[name]}" for name in _SHOWN if fields.get(name) is not None]
    return f"{encoder.trunk.name}: {', '.join(stated)}"


def _library(encoder: Encoder) -> dict[str, str | int]:
    """Return the architecture and the extra tokens of an encoder of another library; nothing for others."""
    library = getattr(encoder.module, "library", None)
    return {} if library is None else {"library": library, "tokens before patches": encoder.trunk.num_extra}


def _resolutions(encoder: Encoder) -> str:
    if "native" in encoder.trunk.capabilities:
        return "positions are computed for any grid"
    if getattr(encoder.trunk, "interpolate", False) and not _library(encoder):
        return "learned positions are interpolated, bicubic and antialiased; never sliced"
    side = 0 if encoder.image_size is None else encoder.image_size // encoder.patch_size
    sides = ((side + 1, side + 1), (side, side + 1), (2 * side, 2 * side), (max(1, side // 2), max(1, side // 2)))
    grids = [PatchGrid(*one) for one in dict.fromkeys(sides) if min(one) > 0 and one != (side, side)]
    found = {grid: next(iter(encoder.trunk.problems_with(grid)), None) for grid in grids}
    read = [grid for grid, problem in found.items() if problem is None]
    problems = [problem for problem in found.values() if problem is not None]
    if not read:
        return f"none: {problems[0]}"
    tried = f"of {len(grids)} grids that were tried, it reads {_grids(read)}" + " patches"
    return f"all that were tried: {_grids(read)} patches" if not problems else f"some: {tried}; {problems[0]}"


def _grids(grids: Sequence[PatchGrid]) -> str:
    return ", ".join(f"{grid.rows} x {grid.columns}" for grid in grids)


def _parts(encoder: Encoder) -> str:
    assert encoder.objective_module is not None
    found = {
        name: sum(value.numel() for value in part.parameters())
        for name, part in encoder.objective_module.named_children()
    }
    counted = {name: f"{number:,} parameter" + "s" * (number != 1) for name, number in found.items() if number}
    return ", ".join(f"{name} ({number})" for name, number in counted.items() if name != "trunk")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
