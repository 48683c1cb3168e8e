"""Embedding of JPEGs, decoding included: ``aimcore embed`` beside a loop over timm's model with torch's DataLoader.

    python benchmarks/embedding.py [--batches 16] [--batch 16] [--workers 0]

Both have the same random weights of AIMv2-L, read the same files at 224 px in bfloat16 and return the mean of each
image's tokens. Their embeddings are compared. They take turns, batch by batch, so that a machine whose speed drifts
favours neither: the ratio is the median over the batches, between its quartiles. Loading of weights and the first two
batches are not timed. It requires the extra ``timm``.
"""

from __future__ import annotations

import argparse
import operator
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import timm
import torch
from features import others, random_trunk
from machine import allocate_as_usual
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aimcore import load_encoder
from aimcore.encoders.embedding import Embedding, Part, embed, shape_of
from aimcore.encoders.embedding_store import EmbeddingStore
from aimcore.engine.host_memory import keep_freed_memory
from aimcore.running.image_sources import source_named

WARM_UP = 2
"""Batches that are not timed: the first packs weights."""


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


def with_timm(model: Any, files: Files, batch: int, workers: int) -> Iterator[Tensor]:
    """Yield ``[B, D]`` of every batch."""
    loader = DataLoader(files, batch, num_workers=workers)
    return (model.forward_features(pixels.bfloat16()).mean(1).float() for pixels in loader)


def with_aimcore(encoder: Any, folder: Path, out: str, batch: int, workers: int) -> Iterator[Part]:
    """Store ``[B, D]`` of every batch as a part of its own, and yield when it is stored."""
    source = source_named(str(folder)).open()
    embedding = Embedding(reads="pooled", precision="autocast", batch_size=batch)
    shape, transform = shape_of(encoder, embedding, encoder.transform), encoder.transform
    store = EmbeddingStore.begin(out, {}, {}, num_rows=len(source), shape=shape, dtype="float32", rows_per_part=batch)
    yield from embed(encoder, source, transform, embedding, store, store.missing(), num_workers=workers)
    store.finish()


@torch.inference_mode()
def measure(forms: Mapping[str, Iterator[Any]]) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Return the seconds of every batch, and what the forms yielded; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    found: dict[str, list[Any]] = {name: [] for name in forms}
    for name, batches in cycle(forms.items()):
        allocate_as_usual()
        if name == "aimcore":
            keep_freed_memory()  # as the command does
        start = time.perf_counter()
        result = next(batches, None)
        times[name].append(time.perf_counter() - start)
        if result is None:
            break
        found[name].append(result)
    number = len(found[name])
    return {name: taken[WARM_UP:number] for name, taken in times.items()}, found


def main() -> None:
    """Print images per second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, weights = Path(name) / "images", Path(name) / "model.safetensors"
        write_images(folder, (WARM_UP + arguments.batches) * arguments.batch)
        models = others(random_trunk())
        save_file(models["authors"].state_dict(), weights)
        encoder, model = load_encoder(str(weights)), models["timm"].bfloat16()
        mean, std, crop = encoder.known_preprocessing.preprocessing
        transform = timm.data.create_transform(
            (3, 224, 224), mean=mean, std=std, crop_pct=crop, interpolation="bicubic"
        )
        timms = with_timm(model, Files(folder, transform), arguments.batch, arguments.workers)
        out = f"{name}/embeddings.zarr"
        own = with_aimcore(encoder, folder, out, arguments.batch, arguments.workers)
        times, found = measure({"aimcore": own, "timm": timms})
        expected_nD = torch.cat(found["timm"])
        found_nD = torch.cat([torch.from_numpy(rows.features) for rows in EmbeddingStore.open(out).parts()])
    difference = (found_nD - expected_nD).norm() / expected_nD.norm()
    print(f"largest relative difference: {float(difference):.1e}")
    for form, taken in times.items():
        print(f"{form:8} {arguments.batch / median(taken):.2f} images/s, at best {arguments.batch / min(taken):.2f}")
    low, middle, high = quantiles(map(operator.truediv, times["timm"], times["aimcore"]), n=4)
    print(f"aimcore is {middle:.2f} times as fast (quartiles {low:.2f} to {high:.2f} over {arguments.batches} batches)")


if __name__ == "__main__":
    main()
