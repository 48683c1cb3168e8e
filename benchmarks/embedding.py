"""Embedding of JPEGs, decoding included: ``aimcore embed`` beside a loop over timm's model with torch's DataLoader.

    python benchmarks/embedding.py [--images 64] [--batch 16] [--workers 0] [--rounds 3]

Both have the same random weights of AIMv2-L, read the same files at 224 px in bfloat16 and return the mean of each
image's tokens. Their embeddings are compared. Loading of weights is not timed; rounds alternate. It requires the extra
``timm``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from features import others, random_trunk
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aimcore import load_encoder
from aimcore.encoders.embedding import Embedding, embed, rows_per_part, shape_of
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.running.image_sources import source_named


class Files(Dataset[Tensor]):
    """Decoded and transformed files, as a user of timm would write it."""

    def __init__(self, folder: Path, transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = sorted(folder.rglob("*.jpg")), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """``[3, 224, 224]``."""
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def write_images(folder: Path, number: int) -> None:
    """Write smooth pictures of 500 x 375 pixels."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index:05}.jpg", quality=90)


def with_timm(model: Any, files: Files, batch: int, workers: int) -> Tensor:
    """Return ``[n, D]``."""
    with torch.inference_mode():
        loader = DataLoader(files, batch, num_workers=workers)
        return torch.cat([model.forward_features(pixels.bfloat16()).mean(1).float() for pixels in loader])


def with_aimcore(encoder: Any, folder: Path, out: str, batch: int, workers: int) -> Tensor:
    """Return ``[n, D]``, which is also stored."""
    source = source_named(str(folder)).open()
    embedding = Embedding(reads="pooled", precision="autocast", batch_size=batch)
    shape, transform = shape_of(encoder, embedding, encoder.transform), encoder.transform
    store = EmbeddingStore.begin(
        out, {}, {}, num_rows=len(source), shape=shape, dtype="float32", rows_per_part=rows_per_part(embedding, shape)
    )
    for _ in embed(encoder, source, transform, embedding, store, store.missing(), num_workers=workers):
        pass
    store.finish()
    return torch.cat([torch.from_numpy(rows.features) for rows in store.parts()])


def main() -> None:
    """Print images per second of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, weights = Path(name) / "images", Path(name) / "model.safetensors"
        write_images(folder, arguments.images)
        models = others(random_trunk())
        save_file(models["authors"].state_dict(), weights)
        encoder, model = load_encoder(str(weights)), models["timm"].bfloat16()
        mean, std, _ = encoder.known_preprocessing.preprocessing
        transform = timm.data.create_transform(
            (3, 224, 224), mean=mean, std=std, crop_pct=encoder.known_preprocessing.preprocessing.eval_crop,
            interpolation="bicubic",
        )  # fmt: skip
        files = Files(folder, transform)
        times: dict[str, list[float]] = {"timm": [], "aimcore": []}
        for number in range(arguments.rounds + 1):
            start = time.perf_counter()
            expected_nD = with_timm(model, files, arguments.batch, arguments.workers)
            middle = time.perf_counter()
            found_nD = with_aimcore(encoder, folder, f"{name}/{number}.zarr", arguments.batch, arguments.workers)
            if number:  # the first round warms up, and packs weights
                times["timm"].append(middle - start)
                times["aimcore"].append(time.perf_counter() - middle)
        print(f"largest relative difference: {float((found_nD - expected_nD).norm() / expected_nD.norm()):.1e}")
    rates = {name: arguments.images / median(taken) for name, taken in times.items()}
    print(f"timm {rates['timm']:.2f}, aimcore {rates['aimcore']:.2f} images/s: {rates['aimcore'] / rates['timm']:.2f}")


if __name__ == "__main__":
    main()
