"""CLIP (arXiv:2103.00020) with a convolutional trunk and with a ViT, on emoji with their Unicode names.

    python -m aimcore.run study.py --out runs/convnet

Each probe is also run on the same trunk with fresh weights ("untrained" in the report), which is what to compare with.
"""

from aimcore_convnet import ConvNet

from aimcore import AimcoreError, Data, Experiment, Schedule, Study
from aimcore_evaluations import Retrieval
from aimcore_objectives import Contrastive
from aimcore_objectives.towers import TextTower
from aimcore_optimizers import AdamW
from aimcore_sources import BundledEmoji
from aimcore_trunks import ViT

SIZES = {"smoke": (32, 4), "small": (64, 300)}
"""Width and steps."""


def study(scale):
    """Two experiments, which differ in their trunk."""
    if scale not in SIZES:
        raise AimcoreError(f"there is no scale {scale!r}: choose from {', '.join(SIZES)}")
    width, num_steps = SIZES[scale]
    trunks = {
        "convnet": ConvNet(width=width, depths=(1, 2), patch_size=4),
        "vit": ViT(width=width, depth=4, num_heads=4, patch_size=8),
    }
    experiments = [experiment(name, trunk, width, num_steps) for name, trunk in trunks.items()]
    return Study(name="convnet", source="arXiv:2201.03545; arXiv:2103.00020", experiments=experiments)


def experiment(name, trunk, width, num_steps):
    """Contrastive training; all but the trunk is shared. Both trunks have 4 x 4 tokens."""
    return Experiment(
        name=name,
        data=Data(
            train=BundledEmoji(split="train", skin_tones=False),
            validation=BundledEmoji(split="test", skin_tones=False),
            batch_size=64,
            image_size=32,
            eval_crop=1.0,
        ),
        trunk=trunk,
        objective=Contrastive(
            text_tower=TextTower(width=width, depth=2, num_heads=4),
            context_length=32,
            embedding_width=width,
            num_pool_heads=4,
        ),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=max(1, num_steps // 20)),
        evaluations=(Retrieval(),),
    )
