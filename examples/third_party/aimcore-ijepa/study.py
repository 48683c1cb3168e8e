"""Does I-JEPA teach a small ViT anything? arXiv:2301.08243, on Fashion-MNIST.

    python -m aimcore.run study.py --out runs/ijepa
    aimcore check causality study.py

Each probe is also run on the same trunk with fresh weights ("untrained" in the report), which is what to compare with.
"""

from aimcore_ijepa import IJEPA, Blocks

from aimcore import AimcoreError, Data, Experiment, Schedule, Study
from aimcore_optimizers import AdamW
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

SIZES = {"smoke": (32, 2, 8), "small": (128, 4, 800)}
"""Width, depth and steps."""


def study(scale):
    """One experiment."""
    if scale not in SIZES:
        raise AimcoreError(f"there is no scale {scale!r}: choose from {', '.join(SIZES)}")
    width, depth, num_steps = SIZES[scale]
    experiment = Experiment(
        name="i-jepa",
        data=Data(
            train=BundledFashionMNIST(split="train"),
            validation=BundledFashionMNIST(split="test"),
            batch_size=64,
            image_size=28,
            eval_crop=1.0,
        ),
        trunk=ViT(width=width, depth=depth, num_heads=4, patch_size=4),
        objective=IJEPA(
            blocks=Blocks(min_context=8),  # of 7 x 7 patches; the authors' 10 are of 16 x 16
            predictor_width=width // 2,
            predictor_depth=2,
            predictor_heads=4,
            momentum=0.98,  # an average over 50 steps: the paper's 0.996, over 250, is for runs of over 100,000
        ),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 20),
        probes=(LinearProbe(epochs=1 if scale == "smoke" else 20, batch_size=256), KNNProbe()),
    )
    return Study(name="i-jepa", source="arXiv:2301.08243", experiments=[experiment])
