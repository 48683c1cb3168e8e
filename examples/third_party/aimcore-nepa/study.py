"""Does next-embedding prediction teach a small ViT anything? NEPA, arXiv:2512.16922, on Fashion-MNIST.

    python -m aimcore.run study.py --out runs/nepa
    aimcore check causality study.py

Each probe is also run on the same trunk with fresh weights ("untrained" in the report), which is what to compare with.
"""

from aimcore_nepa import NextEmbedding

from aimcore import AimcoreError, Data, Experiment, Schedule, Study
from aimcore_optimizers import AdamW
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

SIZES = {"smoke": (32, 2, 8), "small": (128, 4, 600)}
"""Width, depth and steps."""


def study(scale):
    """One experiment."""
    if scale not in SIZES:
        raise AimcoreError(f"there is no scale {scale!r}: choose from {', '.join(SIZES)}")
    width, depth, num_steps = SIZES[scale]
    # The last blocks turn into embeddings of the next patch; the middle ones know most of the image.
    middle = tuple(range(depth // 4, depth - depth // 4))
    experiment = Experiment(
        name="nepa",
        data=Data(
            train=BundledFashionMNIST(split="train"),
            validation=BundledFashionMNIST(split="test"),
            batch_size=64,
            image_size=28,
            eval_crop=1.0,
        ),
        trunk=ViT(width=width, depth=depth, num_heads=4, patch_size=4),
        objective=NextEmbedding(),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 20),
        probes=(
            LinearProbe(epochs=1 if scale == "smoke" else 20, batch_size=256, layers=middle),
            KNNProbe(layers=middle),
        ),
        probe_attention="causal",
    )
    return Study(name="nepa", source="arXiv:2512.16922", experiments=[experiment])
