"""Files of small image tokenizers for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from aimcore.io.tokenizer_files import TokenizerRecord, write_tokenizer
from aimcore_tokenizers import KMeans


def write_kmeans(
    path: Path,
    centres_KF: torch.Tensor | None = None,
    *,
    num_codes: int = 16,
    patch_size: int = 4,
    num_channels: int = 3,
    space: str = "raw",
) -> KMeans:
    """Write random centres, or those given, and return their tokenizer."""
    if centres_KF is None:
        generator = torch.Generator().manual_seed(0)
        centres_KF = torch.rand(num_codes, patch_size**2 * num_channels, generator=generator)
    settings = {
        "num_codes": len(centres_KF),
        "patch_size": patch_size,
        "num_channels": num_channels,
        "space": space,
        "inertia": 1.0,
    }
    tensors = {"centres_KF": centres_KF, "counts_K": torch.ones(len(centres_KF), dtype=torch.int64)}
    write_tokenizer(path, TokenizerRecord(tokenizer="kmeans", settings=settings, fitted_on=""), tensors)
    return KMeans.from_file(str(path))
