"""What the AIM studies of this folder share: data, encoder and training at the three scales (arXiv:2401.08541).

``small`` reads the bundled slice of Fashion-MNIST at 28 px, ``paper`` is AIM-0.6B on ImageNet below ``IMAGENET``.
Training draws a prefix and probing is bidirectional, which are the default cells of Table 3.

The schedule of the paper's ImageNet ablations is published nowhere: ours is that of the authors' released ImageNet
configuration, 125,000 steps with 2.5 % warm-up, an ASSUMPTION.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aimcore import (
    Augmentation,
    Data,
    Engine,
    Experiment,
    Head,
    Objective,
    Probe,
    Scale,
    Schedule,
    Source,
    Target,
    Trunk,
)
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_optimizers import AdamW
from aimcore_probes import AttentiveProbe, LinearProbe
from aimcore_sources import BundledFashionMNIST, FewLabels, ImageFolder
from aimcore_targets import NormalizedPixels
from aimcore_trunks import AIM_BATCH_SIZE, ViT, aim

IMAGENET = os.environ.get("IMAGENET", "file:///data/imagenet")
"""Where ImageNet lies, with folders train/ and val/; any fsspec URL."""
ABLATION_STEPS = 125_000
"""Steps at the paper's scale: an ASSUMPTION, as the head of this file says."""
SMALL_STEPS = 350
ASSUMED_SCHEDULE = "; its schedule is not published: 125,000 steps with 2.5 % warm-up are an ASSUMPTION"


def rows(scores: Mapping[str, tuple[float | None, float]]) -> dict[str, dict[str, float]]:
    """The paper's scores per experiment, from percentages of the linear (or None) and of the attentive probe."""
    return {
        name: {
            probe: round(value / 100, 4)
            for probe, value in zip(("linear", "attentive"), values, strict=True)
            if value is not None
        }
        for name, values in scores.items()
    }


def source(table: str, scale: Scale) -> str:
    """Where a study is from, and what of it is assumed."""
    return f"arXiv:2401.08541, {table}" + (ASSUMED_SCHEDULE if scale == "paper" else "")


def experiment(
    name: str,
    scale: Scale,
    *,
    objective: Objective | None = None,
    trunk: Trunk | None = None,
    crop_scale: tuple[float, float] = (0.4, 1.0),
    **changes: Any,
) -> Experiment:
    """One run; everything that no argument changes is shared by all studies.

    Args:
        name: of the run.
        scale: how large.
        objective: what is trained; by default AIM's own.
        trunk: the encoder; by default the one of the ablations.
        crop_scale: share of the image that a training crop covers.
        changes: other fields of the experiment.
    """
    num_steps = changes.pop("num_steps", {"smoke": 8, "small": SMALL_STEPS, "paper": ABLATION_STEPS}[scale])
    settings = {
        "data": data(scale, crop_scale),
        "trunk": trunk if trunk is not None else encoder(scale),
        "objective": objective if objective is not None else next_patch(scale),
        "optimizer": AdamW(peak_lr=1e-3, weight_decay=0.05),
        "schedule": Schedule(warmup_steps=num_steps // (40 if scale == "paper" else 20)),
        "engine": Engine(zero_stage=1, precision="bf16") if scale == "paper" else Engine(),
        "probes": probes(scale),
        "checkpoint_every": 5_000 if scale == "paper" else None,
    }
    return Experiment(name=name, num_steps=num_steps, **{**settings, **changes})


def data(scale: Scale, crop_scale: tuple[float, float] = (0.4, 1.0)) -> Data:
    """The bundled slice of Fashion-MNIST, or ImageNet."""
    augmentation = Augmentation(crop_scale=crop_scale)
    if scale != "paper":
        train, validation = (fashion(scale, split) for split in ("train", "test"))
        return Data(
            train=train,
            validation=validation,
            batch_size=64,
            image_size=28,
            eval_crop=1.0,
            augmentation=augmentation,
        )
    return Data(
        train=ImageFolder(url=f"{IMAGENET}/train"),
        validation=ImageFolder(url=f"{IMAGENET}/val"),
        batch_size=AIM_BATCH_SIZE,
        image_size=224,
        augmentation=augmentation,
        num_workers=8,
    )


def fashion(scale: Scale, split: Literal["train", "test"]) -> Source:
    """A split of the bundled Fashion-MNIST, or twenty images of each of its classes."""
    whole = BundledFashionMNIST(split=split)
    return FewLabels(source=whole, per_class=20) if scale == "smoke" else whole


def encoder(scale: Scale, *, width: float = 1.0, depth: float = 1.0) -> ViT:
    """AIM-0.6B, or a small ViT of its form; multiples of width and depth keep the width of each attention head."""
    if scale == "paper":
        whole = aim("0.6B")
        head_width = whole.width // whole.num_heads
        num_heads = round(whole.num_heads * width)
        return ViT(width=num_heads * head_width, depth=round(whole.depth * depth), num_heads=num_heads)
    full_width, full_depth = {"smoke": (32, 2), "small": (128, 4)}[scale]
    num_heads = max(1, round(4 * width))
    return ViT(
        width=num_heads * full_width // 4, depth=max(1, round(full_depth * depth)), num_heads=num_heads, patch_size=4
    )


def head(scale: Scale, *, width: float = 1.0, depth: float = 1.0) -> MLPHead:
    """AIM's head (12 blocks of width 2048), or one as wide as the small encoder and of half its depth."""
    full_width, full_depth = {"smoke": (32, 1), "small": (128, 2), "paper": (2048, 12)}[scale]
    return MLPHead(width=round(full_width * width), depth=max(1, round(full_depth * depth)))


def next_patch(
    scale: Scale,
    *,
    target: Target | None = None,
    head_of: Head | None = None,
    prefix: Literal["uniform"] | None = "uniform",
) -> NextPatch:
    """AIM's objective, with what Tables 3 and 4 vary."""
    return NextPatch(
        target=NormalizedPixels() if target is None else target,
        head=head(scale) if head_of is None else head_of,
        prefix=prefix,
    )


def probes(scale: Scale) -> Sequence[Probe]:
    """Table 11's probes for ImageNet; at the smaller scales fewer epochs, and fewer images for the attentive grid."""
    if scale == "paper":
        settings = {"epochs": 50, "warmup_epochs": 5, "batch_size": 1024}
        return LinearProbe(**settings), AttentiveProbe(**settings)
    if scale == "smoke":
        return (LinearProbe(epochs=1),)
    return (
        LinearProbe(epochs=20, batch_size=256),
        AttentiveProbe(epochs=6, batch_size=32, max_train_images=4000, num_heads=4),
    )
