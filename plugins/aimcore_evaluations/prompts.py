"""Prompts for zero-shot classification, and problems of objectives that cannot compare images with texts."""

from __future__ import annotations

from collections.abc import Iterator

from aimcore import Objective

PROMPTS = (
    "{}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of one {}",
    "a photo of several {}s",
    "a close-up of a {}",
    "a bright photo of a {}",
    "a dark photo of a {}",
    "a blurred photo of a {}",
    "a cropped photo of a {}",
    "a photo of a small {}",
    "a photo of a large {}",
    "a drawing of a {}",
    "a painting of a {}",
    "an icon of a {}",
    "a {} on a plain background",
)
"""Sentences like those that arXiv:2103.00020, section 3.1.4, averages over. The sentences themselves are our own."""


def compared_by(objective: Objective) -> str:
    """Describe the similarity of an image and a text, for the protocol card."""
    return "cosine of embeddings" if "embed" in objective.skills else "log-likelihood of the text given the image"


def cannot_compare(objective: Objective) -> Iterator[str]:
    """Yield why modules of ``objective`` cannot compare images and texts."""
    if not {"embed", "caption"} & objective.skills:
        yield f"objective {objective.name!r} neither embeds texts nor writes captions, so it cannot compare them"
