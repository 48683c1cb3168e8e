"""How good are frozen features on 15 data sets? AIM, arXiv:2401.08541, Table 6.

    python -m aimcore.run examples/aim_frozen_suite.py                  # two cores, minutes, on bundled images
    BENCHMARKS=/data AIM_WEIGHTS=aim.safetensors python -m aimcore.run examples/aim_frozen_suite.py --scale paper
    python examples/aim_frozen_suite.py runs/aim-frozen-suite-paper     # Table 6 with a row of what was measured

A row of this study is a data set, on which one frozen encoder is probed. Data sets that are not below ``BENCHMARKS``
are shown as "not run" beside the paper's numbers, and ``aimcore_sources.BENCHMARKS`` has the folders that are looked
for. Nothing is downloaded.

``paper`` probes the encoder ``AIM_ENCODER``, whose weights are in the file ``AIM_WEIGHTS``, with Table 11's protocol:
one of AIM's, or one of the paper's baselines by timm. ``small`` pre-trains a small encoder on Fashion-MNIST, and probes
it beside random features of the same width, on the bundled images and on whatever is below ``BENCHMARKS``, at 32 px and
with at most 4,000 training images: nothing of the paper's numbers need show.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from aimcore import AimcoreError, Data, Engine, Experiment, Probe, Scale, Schedule, Source, Study, Trunk, Weights
from aimcore.report import Summary, read_summary
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch, NoTraining
from aimcore_optimizers import AdamW
from aimcore_probes import AttentiveProbe
from aimcore_sources import Benchmark, BenchmarkName, BundledEmoji, BundledFashionMNIST, missing_files
from aimcore_targets import NormalizedPixels
from aimcore_trunks import AIMSize, RandomFeatures, ViT, aim
from aimcore_trunks.timm_models import TimmTrunk

ROOT = os.environ.get("BENCHMARKS", "/data")
"""The folder that contains those of the data sets."""
ENCODER = os.environ.get("AIM_ENCODER", "AIM-0.6B")
"""The row of Table 6 that is measured at the paper's scale: a key of ``_AIM`` or ``_BY_TIMM``."""
WEIGHTS = os.environ.get("AIM_WEIGHTS", "/data/aim/aim_600m_2bimgs_attnprobe_backbone.safetensors")
"""Its released weights as a safetensors file (``python -m aimcore_trunks.weight_files`` converts the pickled one)."""

NAMES: tuple[BenchmarkName, ...] = get_args(BenchmarkName)
SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
TABLE_6 = {
    "DINO ViT-B/8": (80.1, 66.0, 97.8, 87.3, 89.5, 78.4, 92.3, 89.2, 58.5, 93.7, 90.2, 6.1, 98.2, 57.0, 41.1),
    "iBOT ViT-L/16": (83.5, 70.5, 99.2, 93.3, 93.5, 81.6, 92.8, 90.8, 61.8, 94.5, 90.0, 5.9, 98.0, 60.3, 47.7),
    "DINOv2 ViT-g/14": (86.4, 84.5, 99.6, 95.2, 96.3, 86.3, 96.4, 95.6, 68.2, 96.5, 90.7, 8.0, 98.6, 66.7, 58.8),
    "BEiT ViT-L/14": (62.2, 44.4, 94.4, 78.7, 79.0, 64.0, 80.9, 69.5, 52.0, 92.8, 88.2, 4.2, 97.5, 47.7, 25.9),
    "MAE ViT-H/14": (80.9, 64.6, 97.1, 85.8, 90.2, 78.1, 95.0, 93.7, 58.1, 94.2, 89.8, 5.4, 98.1, 56.9, 42.2),
    "MAE ViT-2B/14": (82.2, 70.8, 97.5, 87.3, 93.4, 81.2, 95.1, 94.9, 57.8, 94.4, 90.3, 7.3, 98.2, 60.1, 50.2),
    "AIM-0.6B": (78.5, 64.0, 97.2, 86.8, 90.1, 80.1, 93.0, 93.0, 57.9, 94.3, 90.0, 7.8, 98.4, 58.3, 45.2),
    "AIM-1B": (80.6, 67.2, 98.2, 88.3, 91.6, 81.8, 93.4, 93.9, 58.6, 94.5, 90.0, 9.0, 98.6, 59.8, 47.5),
    "AIM-3B": (82.2, 69.7, 98.4, 89.9, 92.7, 81.9, 94.1, 93.8, 58.8, 94.3, 90.4, 9.7, 98.5, 60.9, 48.9),
    "AIM-7B": (82.4, 70.9, 98.6, 90.0, 93.1, 82.3, 93.8, 92.1, 59.5, 93.6, 90.7, 10.1, 98.6, 61.7, 49.6),
    "AIM-7B, layer 20": (84.0, 75.5, 98.9, 91.8, 94.1, 85.6, 95.4, 95.0, 61.4, 94.2, 90.5, 8.4, 98.5, 63.5, 57.7),
}
"""Accuracies in %, in the order of ``NAMES``."""
AVERAGES = (75.0, 77.6, 81.9, 65.4, 75.3, 77.4, 75.6, 76.9, 77.6, 77.8, 79.6)
"""The paper's last column."""
_AIM: Mapping[str, AIMSize] = {"AIM-0.6B": "0.6B", "AIM-1B": "1B", "AIM-3B": "3B", "AIM-7B": "7B"}
_BY_TIMM = {
    "DINO ViT-B/8": ("vit_base_patch8_224", 8),
    "iBOT ViT-L/16": ("vit_large_patch16_224", 16),
    # Table 6 says ViT-L/14; the authors of BEiT released patches of 16 px.
    "BEiT ViT-L/14": ("beit_large_patch16_224", 16),
    "MAE ViT-H/14": ("vit_huge_patch14_224", 14),
}
"""Architectures of timm and their patch sizes; ``AIM_WEIGHTS`` is a file in the layout of the authors."""
_PROBE = "attentive"


def present() -> tuple[BenchmarkName, ...]:
    """The data sets that are below ``ROOT``."""
    return tuple(name for name in NAMES if not missing_files(name, ROOT))


def frozen(name: str, data: Data, trunk: Trunk, probe: Probe, weights: Weights | None, engine: Engine) -> Experiment:
    """A row: nothing is trained but the probe."""
    return Experiment(
        name=name,
        data=data,
        trunk=trunk,
        objective=NoTraining(),
        num_steps=0,
        probes=(probe,),
        initial_weights=weights,
        engine=engine,
    )


def benchmark_data(name: BenchmarkName, image_size: int, **settings: Any) -> Data:
    """Training and test images of a data set of Table 9."""
    train, test = (Benchmark(dataset=name, root=ROOT, split=split) for split in SPLITS)
    return Data(train=train, validation=test, batch_size=1, image_size=image_size, **settings)


def encoder() -> Trunk:
    """The encoder of the row ``ENCODER``."""
    if ENCODER in _AIM:
        return aim(_AIM[ENCODER])
    if ENCODER in _BY_TIMM:
        model, patch_size = _BY_TIMM[ENCODER]
        return TimmTrunk(model=model, patch_size=patch_size, num_extra=1)
    raise AimcoreError(f"AIM_ENCODER must be one of {', '.join((*_AIM, *_BY_TIMM))}, got {ENCODER!r}")


def paper_experiments() -> list[Experiment]:
    """``ENCODER`` on the data sets that are there; on all of them if none is, to show the cost and what is missing."""
    trunk, weights = encoder(), Weights(url=WEIGHTS)
    # BEiT's authors normalise pixels by 0.5; the others by ImageNet's mean and standard deviation, the default.
    pixels: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if ENCODER.startswith("BEiT") else {}
    return [
        frozen(
            name,
            benchmark_data(name, 224, num_workers=8, **pixels),
            trunk,
            AttentiveProbe.table_11(imagenet=name == "imagenet"),
            weights,
            Engine(precision="autocast"),
        )
        for name in present() or NAMES
    ]


def small_experiments(scale: Scale) -> list[Experiment]:
    """A pre-trained encoder and random features, on the bundled images and on the data sets that are there."""
    width, depth, num_steps, epochs, images = {"smoke": (16, 1, 4, 1, 64), "small": (128, 4, 350, 6, 4000)}[scale]
    encoders: dict[str, Trunk] = {
        "pretrained": ViT(width=width, depth=depth, num_heads=4, patch_size=4),
        "random": RandomFeatures(width=width, patch_size=4),
    }
    probe = AttentiveProbe(epochs=epochs, batch_size=32, max_train_images=images, num_heads=4)
    first = Experiment(
        name="pretrain",
        data=bundled(BundledFashionMNIST(split="train"), BundledFashionMNIST(split="test"), batch_size=64),
        trunk=encoders["pretrained"],
        objective=NextPatch(target=NormalizedPixels(), head=MLPHead(width=width, depth=max(1, depth // 2))),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 20),
    )
    sets = {
        "fashion_mnist": first.data,
        "emoji": bundled(BundledEmoji(split="train"), BundledEmoji(split="test")),
        **{name: benchmark_data(name, 32) for name in present()},
    }
    weights = {"pretrained": Weights(experiment="pretrain"), "random": None}
    rows = [
        frozen(f"{encoder}-{name}", data, trunk, probe, weights[encoder], Engine())
        for name, data in sets.items()
        for encoder, trunk in encoders.items()
    ]
    return [first, *rows]


def bundled(train: Source, test: Source, batch_size: int = 1) -> Data:
    """Bundled images at 32 px."""
    return Data(train=train, validation=test, batch_size=batch_size, image_size=32, eval_crop=1.0)


def scores_of(row: str) -> dict[str, dict[str, float]]:
    """A row of Table 6 as fractions, by data set."""
    return {name: {_PROBE: round(score / 100, 4)} for name, score in zip(NAMES, TABLE_6[row], strict=True)}


def study(scale: Scale) -> Study:
    """Table 6: the paper's numbers are those of ``ENCODER``."""
    experiments = paper_experiments() if scale == "paper" else small_experiments(scale)
    scores = scores_of(ENCODER)
    of_set = {one.name: one.name.removeprefix("pretrained-") for one in experiments}
    return Study(
        name="aim-frozen-suite",
        source=f"arXiv:2401.08541, Table 6, {ENCODER}; EuroSAT's split is an ASSUMPTION",
        experiments=experiments,
        paper={row: scores[name] for row, name in of_set.items() if name in scores},
        paper_only={name: score for name, score in scores.items() if name not in of_set.values()},
    )


def table(summary: Summary) -> Iterable[str]:
    """Yield the lines of Table 6, with a row of what ``summary`` has measured."""
    short = [name[:7] for name in NAMES]
    yield " ".join([f"{'%':18}", *(f"{name:>7}" for name in short), f"{'mean':>7}"])
    for (row, scores), average in zip(TABLE_6.items(), AVERAGES, strict=True):
        yield " ".join([f"{row:18}", *(f"{score:7.1f}" for score in scores), f"{average:7.1f}"])
    measured = [_measured(summary, name) for name in NAMES]
    known = [score for score in measured if score is not None]
    # A mean over some of the data sets is no number of the table.
    mean = f"{sum(known) / len(known):7.1f}" if len(known) == len(NAMES) else "not run"
    yield " ".join([f"{'measured':18}", *(f"{s:7.1f}" if s is not None else "not run" for s in measured), mean])


def _measured(summary: Summary, name: str) -> float | None:
    entry = summary.of(name) or summary.of(f"pretrained-{name}")
    probe = None if entry is None else (entry.probes or {}).get(_PROBE)
    return None if probe is None else 100 * probe.top1


if __name__ == "__main__":
    print("\n".join(table(read_summary(Path(sys.argv[1]) / "summary.json"))))
