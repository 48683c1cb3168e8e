"""Next-embedding prediction for aimcore: the module that this distribution's entry point names."""

from __future__ import annotations

from collections.abc import Sequence

from aimcore import Objective, hookimpl
from aimcore_nepa.objective import NextEmbedding, NextEmbeddingModule


@hookimpl
def objectives() -> Sequence[type[Objective]]:
    """The objectives that this plugin supplies."""
    return [NextEmbedding]


__all__ = ["NextEmbedding", "NextEmbeddingModule"]
