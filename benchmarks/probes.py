"""Probes: all heads of a grid against one plain head, several layers, and a large feature store in bounded memory.

    python benchmarks/probes.py [--part heads|layers|store]

- heads: the 14 heads of arXiv:2411.14402, Table A2, trained together on the cached tokens of one layer, against one
  plain head trained alone on the same tokens: equation 4 of arXiv:2401.08541 as it is written, with keys and values of
  every token. The same head in this project's form is timed too. Runs alternate, so that a machine whose speed drifts
  favours none.
- layers: the 14 heads of several layers, read back from zarr one layer after the other, against as many plain heads.
- store: a store of the tokens of 24 layers of 100,000 images is written in batches; each layer is read back in pieces,
  and its 14 heads are trained. Printed are the size of the store and the largest resident memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
from machine import describe
from torch import Generator, Tensor, nn
from torch.nn import functional

from aimcore import LabelledFeatures
from aimcore.evaluation import FeatureCache, FeatureKind, stored_features
from aimcore.evaluation.feature_tables import Rows
from aimcore.evaluation.stored_features import StoredTable
from aimcore_probes import AttentiveProbe

CLASSES = 10
BATCH = 512
RATE, DECAY, CLIPPING = 1e-3, 0.1, 3.0


class PlainHead(nn.Module):
    """One attentive head as anyone would write it: BatchNorm, keys and values of all tokens, attention, classifier."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.BatchNorm1d(width, eps=1e-6, affine=False)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.classifier = nn.Linear(width, CLASSES, bias=False)

    def forward(self, tokens_bND: Tensor) -> Tensor:
        """``[b, C]`` logits."""
        tokens_bND = self.norm(tokens_bND.transpose(1, 2)).transpose(1, 2)
        heads = (*tokens_bND.shape[:2], self.num_heads, -1)
        key_bHNE, value_bHNE = (part(tokens_bND).reshape(heads).transpose(1, 2) for part in (self.key, self.value))
        query_bH1E = self.query.reshape(1, self.num_heads, 1, -1).expand(len(tokens_bND), -1, -1, -1)
        pooled_bH1E = functional.scaled_dot_product_attention(query_bH1E, key_bHNE, value_bHNE)
        logits: Tensor = self.classifier(pooled_bH1E.flatten(1))
        return logits


def train_plain(data: LabelledFeatures, num_heads: int) -> None:
    """One epoch of a plain head."""
    module, generator = PlainHead(data.features.shape[2], num_heads), Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    order = torch.randperm(len(data.labels), generator=generator)
    for index in torch.split(order[: len(order) - len(order) % BATCH], BATCH):
        optimizer.zero_grad()
        functional.cross_entropy(module(data.features.index_select(0, index)), data.labels[index]).backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIPPING)
        optimizer.step()


def drawn(shape: tuple[int, int, int], seed: int) -> LabelledFeatures:
    """Tokens whose mean tells the class."""
    generator = Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, shape[:1], generator=generator)
    means = torch.randn(CLASSES, 1, shape[2], generator=Generator().manual_seed(99))
    return LabelledFeatures(torch.randn(shape, generator=generator) + 0.3 * means[labels], labels, CLASSES)


def fastest(forms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each form; they run in turn."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            times[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in times.items()}


def probe_of(num_heads: int) -> AttentiveProbe:
    """The grid of Table A2, for one epoch."""
    return AttentiveProbe.aimv2(epochs=1, num_heads=num_heads, batch_size=BATCH)


def heads(shape: tuple[int, int, int], num_heads: int, repeats: int) -> None:
    """Print the time of 14 heads together, of one of them alone, and of one plain head."""
    data, held_out, grid = drawn(shape, 0), drawn((64, *shape[1:]), 1), probe_of(num_heads)
    alone = attrs.evolve(grid, learning_rates=(RATE,), weight_decays=(DECAY,))
    taken = fastest(
        {
            "plain head": lambda: train_plain(data, num_heads),
            "1 head": lambda: alone.fit(data, held_out, 0),
            f"{len(grid.grid)} heads": lambda: grid.fit(data, held_out, 0),
        },
        repeats,
    )
    plain, one, together = taken.values()
    text = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in taken.items())
    print(f"{shape[0]:,} images, {shape[1]} tokens of {shape[2]} values, {num_heads} attention heads: {text}")
    print(
        f"  {len(grid.grid)} heads / plain head: {together / plain:.2f} (goal: at most 1.5), "
        f"{len(grid.grid)} heads / 1 head: {together / one:.2f}"
    )


def layers(shape: tuple[int, int, int], num_heads: int, num_layers: int, repeats: int) -> None:
    """Print the time of all heads of several layers, read back from zarr, against that of as many plain heads."""
    grid, data = probe_of(num_heads), drawn(shape, 0)
    kept, held_out = torch.arange(64, shape[0]), torch.arange(64)
    trained = LabelledFeatures(data.features[kept], data.labels[kept], CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        tables = [written(FeatureCache(folder), shape, layer, shape[0]) for layer in range(num_layers)]
        taken = fastest(
            {
                "plain": lambda: train_plain(trained, num_heads),
                "layers": lambda: [table.fit(grid, kept, held_out, 0) for table in tables],
            },
            repeats,
        )
    plain, together = taken.values()
    print(f"{num_layers} layers of {len(grid.grid)} heads, from zarr: {together:.2f} s")
    print(f"  / plain head: {together / plain:.2f} (goal: at most {1.5 * num_layers:g})")


def written(cache: FeatureCache, shape: tuple[int, int, int], layer: int, batch: int) -> StoredTable:
    """Write the tokens of a layer in batches, as they come from a trunk."""
    kind = FeatureKind("tokens", (layer,))
    writer = cache.writer({"layer": layer}, kind, CLASSES, None)
    for start in range(0, shape[0], batch):
        size = min(batch, shape[0] - start)
        rows = drawn((size, *shape[1:]), start)
        writer.add(Rows(rows.features, rows.labels, torch.arange(start, start + size)))
    return writer.finish()


def store(shape: tuple[int, int, int], num_heads: int, num_layers: int) -> None:
    """Print the size of a store, and the largest resident memory after it was written and after it was probed."""
    probe, before = probe_of(num_heads), resident()
    kept, held_out = torch.arange(shape[0] // 10, shape[0]), torch.arange(shape[0] // 10)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tables = [written(FeatureCache(folder), shape, layer, 1000) for layer in range(num_layers)]
        writing, after_writing = time.perf_counter() - start, resident()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        start = time.perf_counter()
        scores, after = [], []
        for table in tables:
            scores.append(float(table.correct(table.fit(probe, kept, held_out, 0), held_out).double().mean()))
            after.append(resident())
    probing = time.perf_counter() - start
    print(
        f"{num_layers} layers of {shape[0]:,} images, {shape[1]} tokens of {shape[2]} values: {size / 2**20:,.0f} MiB "
        f"stored in {writing:.0f} s, {len(probe.grid)} heads per layer trained for an epoch in {probing:.0f} s "
        f"(held-out accuracy {min(scores):.2f} to {max(scores):.2f})"
    )
    print(
        f"  largest resident memory so far: {before:,.0f} MiB at the start, {after_writing:,.0f} MiB after writing, "
        f"{after[0]:,.0f} MiB after probing one layer, {after[-1]:,.0f} MiB after probing all"
    )


def resident() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("heads", "layers", "store"), help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=100_000, help="images of the store")
    parser.add_argument("--piece-mib", type=int, default=32, help="of the store, read together; layers are larger")
    options = parser.parse_args()
    print(describe())
    if options.part in (None, "heads"):
        heads((4096, 49, 128), 1, options.repeats)
        heads((2048, 64, 256), 2, options.repeats)
    if options.part in (None, "layers"):
        layers((4096, 49, 128), 1, 6, options.repeats)
    if options.part in (None, "store"):
        stored_features.IN_MEMORY_BYTES, stored_features.PIECE_BYTES = 0, options.piece_mib * 2**20
        store((options.images, 4, 64), 1, 24)


if __name__ == "__main__":
    main()
