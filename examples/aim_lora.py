"""What do low-rank and full fine-tuning add to a frozen encoder? AIM, arXiv:2401.08541, section 5.5 and Table 8.

    python -m aimcore.run examples/aim_lora.py                          # two cores, a few minutes; extra: lora
    python -m aimcore.run examples/aim_lora.py --scale paper --dry-run

One encoder is pre-trained and probed. Then it is fine-tuned with labels: with LoRA of rank 8 on queries, values and
output projections, as in the paper, and in full, which the paper does not do. The last row trains the same encoder with
labels from fresh weights. All three have attentive pooling, mixup of 0.8 and Table 11's augmentation and rates. The
paper chooses the best of a grid of rates on its test images; ours is one rate of that grid, an ASSUMPTION.

``paper`` is AIM-0.6B to AIM-7B; encoders are trained on DFN-2B+ (500,000 steps for AIM-0.6B, 1,250,000 for others).
"""

from typing import Any

import attrs
from aim_data import sources
from aim_settings import encoder, experiment

from aimcore import Augmentation, Experiment, Scale, Schedule, Study, Trunk, Weights
from aimcore_evaluations import Accuracy
from aimcore_objectives import Classification
from aimcore_optimizers import AdamW
from aimcore_probes import PAPERS_AUGMENTATION
from aimcore_trunks import AIM_NUM_STEPS, LORA_WEIGHTS, AIMSize, LoRA, aim

SIZES: tuple[AIMSize, ...] = ("0.6B", "1B", "3B", "7B")
FROZEN = {"0.6B": 0.785, "1B": 0.806, "3B": 0.822, "7B": 0.824}
LORA = {"0.6B": 0.810, "1B": 0.836, "3B": 0.855, "7B": 0.863}
IMAGENET_IMAGES, IMAGENET_EPOCHS, IMAGENET_WARMUP, IMAGENET_BATCH = 1_281_167, 50, 5, 1024
"""Table 11's column for ImageNet."""
RATE = 1e-3
"""One of Table 11's grid: an ASSUMPTION."""


def fine_tuned(scale: Scale, name: str, pretrained: Experiment, *, adapted: bool, fresh: bool = False) -> Experiment:
    """The encoder of ``pretrained``, trained with labels.

    Args:
        scale: how large.
        name: of the run.
        pretrained: whose encoder and data.
        adapted: whether by LoRA; else all weights are trained.
        fresh: whether with fresh weights.
    """
    trunk: Trunk = LoRA(trunk=pretrained.trunk) if adapted else pretrained.trunk
    weights = Weights(experiment=pretrained.name, fresh=LORA_WEIGHTS if adapted else ())
    epoch = IMAGENET_IMAGES // IMAGENET_BATCH
    num_steps = {"smoke": 4, "small": 400, "paper": IMAGENET_EPOCHS * epoch}[scale]
    warmup = IMAGENET_WARMUP * epoch if scale == "paper" else num_steps // 10
    objective = Classification(
        num_classes=1000 if scale == "paper" else 10,
        pooling="attentive",
        num_pool_heads=pretrained.trunk.width // 128 if scale == "paper" else 4,  # type: ignore[attr-defined]
        mixup=0.8,
    )
    return experiment(
        name,
        scale,
        objective=objective,
        trunk=trunk,
        num_steps=num_steps,
        data=labelled(scale, pretrained),
        optimizer=AdamW(peak_lr=RATE, weight_decay=0.1, betas=(0.9, 0.999), gradient_clipping=3.0),
        schedule=Schedule(warmup_steps=warmup, final_lr=1e-5),
        probes=(),
        evaluations=(Accuracy(),),
        initial_weights=None if fresh else weights,
    )


def labelled(scale: Scale, pretrained: Experiment) -> Any:
    """The labelled images of ``pretrained``, with Table 11's augmentation; clothes are not rotated or recoloured."""
    data = pretrained.data
    augmentation = PAPERS_AUGMENTATION if scale == "paper" else Augmentation(crop_scale=(0.6, 1.0))
    batch_size = IMAGENET_BATCH if scale == "paper" else data.batch_size
    return attrs.evolve(data, train=data.probe_train or data.train, augmentation=augmentation, batch_size=batch_size)


def encoders(scale: Scale) -> list[Experiment]:
    """What is adapted: AIM's sizes, or one small encoder."""
    if scale != "paper":
        return [experiment("frozen", scale, trunk=encoder(scale))]
    found = []
    for size in SIZES:
        num_steps = 500_000 if size == "0.6B" else AIM_NUM_STEPS
        one = experiment(
            f"frozen-{size}", scale, trunk=aim(size), num_steps=num_steps, schedule=Schedule(warmup_steps=31_250)
        )
        data = attrs.evolve(one.data, train=sources(scale)["mixed"], probe_train=one.data.train)
        found.append(attrs.evolve(one, data=data))
    return found


def study(scale: Scale) -> Study:
    """The rows of Table 8, with full fine-tuning and training from scratch beside them."""
    experiments: list[Experiment] = []
    paper: dict[str, dict[str, float]] = {}
    for pretrained in encoders(scale):
        size = pretrained.name.partition("-")[2]
        suffix = f"-{size}" if size else ""
        experiments += [
            pretrained,
            fine_tuned(scale, f"lora{suffix}", pretrained, adapted=True),
            fine_tuned(scale, f"full{suffix}", pretrained, adapted=False),
            fine_tuned(scale, f"scratch{suffix}", pretrained, adapted=False, fresh=True),
        ]
        paper[pretrained.name] = {"attentive": FROZEN[size or "0.6B"]}
        paper[f"lora{suffix}"] = {"accuracy/top1": LORA[size or "0.6B"]}
    where = "arXiv:2401.08541, Table 8; the rate of fine-tuning is an ASSUMPTION"
    return Study(name="aim-lora", source=where, experiments=experiments, paper=paper)
