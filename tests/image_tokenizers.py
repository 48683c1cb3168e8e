"""Files of small image tokenizers for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from aimcore.io.tokenizer_files import TokenizerRecord, write_tokenizer
from aimcore_tokenizers import DVAE, KMeans
from aimcore_tokenizers.dvae import DVAEModule
from aimcore_tokenizers.dvae import write_dvae as write_state
from aimcore_tokenizers.dvae_networks import DVAEShape, with_margin

SMALL = DVAEShape(num_codes=12, width=4, groups=2, blocks_per_group=1, decoder_input=3)
"""A total stride of 2."""
SENSITIVE = DVAEShape(num_codes=32, width=16, groups=2, blocks_per_group=1, decoder_input=3)
"""Wide enough that the code of every patch changes if its pixels do."""


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


def write_dvae(path: Path, shape: DVAEShape = SENSITIVE) -> DVAE:
    """Write a discrete VAE with random weights, whose codes change with few pixels, and return its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = DVAEModule(shape)
        for weight in module.parameters():
            torch.nn.init.normal_(weight) if weight.dim() > 1 else torch.nn.init.zeros_(weight)
        with torch.no_grad():
            filters = module.encoder.input.weight
            filters -= filters.mean((1, 2, 3), keepdim=True)  # blind to brightness
            side = 4 * shape.stride
            features_BDRC = module.encoder(with_margin(torch.rand(64, shape.num_channels, side, side)))[-1].relu()
            logits_BRCK = module.logits(features_BDRC.movedim(1, -1))
            scale_K = logits_BRCK.std((0, 1, 2))  # all codes alike, so that each wins somewhere
            module.logits.weight /= scale_K[:, None]
            module.logits.bias -= logits_BRCK.mean((0, 1, 2)) / scale_K
        write_state(path, shape, module.state_dict(), fitted_on="")
    return DVAE.from_file(str(path))
