"""Model cards: what an exported encoder is, how it is used, where it is from, and what was measured."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import attrs

from aimcore.encoders.encoder import Encoder
from aimcore.encoders.preprocessing import ASSUMED
from aimcore.io.locations import is_local, without_secrets

CARD_FILE = "README.md"


@attrs.frozen
class CardSection:
    """A section of a model card, in Markdown."""

    title: str
    text: str


def model_card(
    encoder: Encoder,
    *,
    title: str,
    usage: str,
    library: str,
    dtype: str,
    left_out: Sequence[str],
    sections: Sequence[CardSection],
) -> str:
    """Return the card of an exported encoder, in Markdown. It has no path of the machine on which it was written.

    Args:
        encoder: the encoder.
        title: what the files are.
        usage: code that opens them.
        library: who reads them.
        dtype: type of the numbers in the files.
        left_out: parts of the encoder that are not in the files.
        sections: further sections.
    """
    own = [
        CardSection("Use", f"`FOLDER` is the path of this folder.\n\n```python\n{usage.rstrip()}\n```"),
        CardSection("Images", "\n".join(_images(encoder))),
        CardSection("Origin", "\n".join(_origin(encoder, left_out))),
    ]
    parts = [_head(encoder, library), f"# {_name(encoder)}", "\n".join(_summary(encoder, title, dtype))]
    parts += [f"## {section.title}\n\n{section.text}" for section in (*own, *sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def public_name(url: str) -> str:
    """Return a URL without user, password and query, or the name of a local file without its folders.

    >>> public_name("/home/me/secret/model.safetensors"), public_name("https://me:key@host/model.pth?token=1")
    ('model.safetensors', 'https://host/model.pth')
    """
    return posixpath.basename(url.rstrip("/")) if is_local(url) else without_secrets(url)


def _name(encoder: Encoder) -> str:
    return f"An image encoder: {encoder.trunk.name}, {encoder.num_parameters:,} parameters"


def _head(encoder: Encoder, library: str) -> str:
    lines = ["---", f"library_name: {library}", "pipeline_tag: image-feature-extraction"]
    if encoder.source.licence is not None:
        lines.append(f"license: {encoder.source.licence}")
    return "\n".join([*lines, "---"])


def _summary(encoder: Encoder, title: str, dtype: str) -> Iterator[str]:
    size = "any size" if encoder.image_size is None else f"{encoder.image_size} x {encoder.image_size} px"
    yield f"Exported by aimcore {version('aimcore')}: {title}.\n"
    yield f"- Width {encoder.width}, {encoder.depth} blocks, patches of {encoder.patch_size} px, images of {size}."
    own = encoder.source.dtype
    yield f"- Weights are in {dtype}{', as in the source' if dtype == own else f'; those of the source are in {own}'}."
    if encoder.objective is not None:
        yield f"- The objective around the trunk was `{encoder.objective.name}`."


def _images(encoder: Encoder) -> Iterator[str]:
    (mean, std, crop), side = encoder.known_preprocessing.preprocessing, encoder.image_size
    if side is None:
        yield f"- Keep the size of an image, in multiples of {encoder.patch_size} px."
    else:
        resized = f"the short side to {side} / {crop:g} px (rounded up)" if crop < 1 else f"the short side to {side} px"
        yield f"- Resize {resized}, bicubic, and cut out the centre, {side} x {side} px."
    yield f"- Scale values to [0, 1], subtract {list(mean)}, divide by {list(std)}."
    stated = encoder.known_preprocessing.source
    yield f"- These settings are {stated}." if stated.startswith(ASSUMED) else f"- These settings are from: {stated}."


def _origin(encoder: Encoder, left_out: Sequence[str]) -> Iterator[str]:
    source = encoder.source
    yield f"- The weights are from {source.title}."
    for file in source.files:
        yield f"- `{public_name(file.url)}`: {file.num_bytes:,} bytes, sha256 `{file.sha256}`."
    if encoder.is_changed:
        yield "- An adaptation of the weights (LoRA) was merged into them."
    yield f"- Licence of the weights: {source.licence or 'unknown; ask who trained them'}."
    if left_out:
        yield f"- Not in these files: {', '.join(left_out)}."
