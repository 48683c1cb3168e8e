"""Random orders per sample, with and without telling the model what comes next. On Fashion-MNIST.

    python -m aimcore.run study.py --out runs/random_orders
    aimcore check causality study.py

Each probe is also run on the same trunk with fresh weights ("untrained" in the report), which is what to compare with.
"""

from aimcore_random_orders import RandomOrders, ToldViT

from aimcore import AimcoreError, Data, Experiment, Schedule, Study
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_optimizers import AdamW
from aimcore_probes import KNNProbe, LinearProbe
from aimcore_sources import BundledFashionMNIST
from aimcore_targets import NormalizedPixels

SIZES = {"smoke": (32, 2, 8), "small": (128, 4, 300)}
"""Width, depth and steps."""


def study(scale):
    """Two experiments."""
    if scale not in SIZES:
        raise AimcoreError(f"there is no scale {scale!r}: choose from {', '.join(SIZES)}")
    experiments = [experiment(scale, name, told) for name, told in (("told", True), ("not-told", False))]
    source = "arXiv:2404.09562; arXiv:2412.01827"
    return Study(name="random-orders", source=source, experiments=experiments)


def experiment(scale, name, told):
    """Next-patch prediction; all but ``told`` is shared."""
    width, depth, num_steps = SIZES[scale]
    return Experiment(
        name=name,
        data=Data(
            train=BundledFashionMNIST(split="train"),
            validation=BundledFashionMNIST(split="test"),
            batch_size=64,
            image_size=28,
            eval_crop=1.0,
        ),
        trunk=ToldViT(width=width, depth=depth, num_heads=4, patch_size=4, told=told),
        objective=NextPatch(
            ordering=RandomOrders(),
            target=NormalizedPixels(),
            head=MLPHead(width=width, depth=max(1, depth // 2)),
            prefix=None,
        ),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 20),
        probes=(LinearProbe(epochs=1 if scale == "smoke" else 20, batch_size=256), KNNProbe()),
        probe_attention="causal",
    )
