"""Does pre-training pay? Probes and fine-tuning with few labels, after AIM (arXiv:2401.08541).

    python -m aimcore.run examples/few_labels.py                    # two cores, under ten minutes
    python -m aimcore.run examples/few_labels.py --scale paper --dry-run

One trunk learns to predict patches without labels. Then each probe is fitted on it with 10, 100, 1,000 and all labels
per class, and so are the same probes on the untrained trunk and on raw pixels. The trunk is also fine-tuned with 10,
100 and 1,000 labels per class, and the same trunk is trained from scratch on the same images. The report draws accuracy
against the number of labels, and says first where curves cross. The papers have no such measurement.

At ``small``, images have 28 px and the trunk is narrow. The mean of its tokens then has fewer numbers than the image
has pixels: ``linear_tokens`` reads all tokens instead. Pre-training reads the whole of Fashion-MNIST where its Debian
package is installed, and otherwise the bundled part of it. Labels and tests are always those of the bundled part.
``paper`` is AIM-0.6B on ImageNet, with the schedules that ``aim_settings.py`` assumes.
"""

from pathlib import Path
from typing import Any

import attrs
from aim_settings import ABLATION_STEPS, encoder, experiment, head

from aimcore import Augmentation, Data, Experiment, LabelPoint, Probe, Scale, Schedule, Source, Study, Weights
from aimcore_objectives import Classification, NextPatch
from aimcore_optimizers import AdamW
from aimcore_probes import AttentiveProbe, KNNProbe, LinearProbe, LinearTokensProbe
from aimcore_sources import BundledFashionMNIST, FashionMNIST, FewLabels
from aimcore_trunks import ViT

PRETRAINED = "pretrained"
LABELS: dict[Scale, tuple[int, ...]] = {"smoke": (4,), "small": (10, 100, 1000), "paper": (10, 100)}
"""Labels per class."""
NUM_DRAWS: dict[Scale, int] = {"smoke": 1, "small": 2, "paper": 3}
"""Draws of the labelled images for training; probes have three."""
STEPS = {4: 4, 10: 100, 100: 200, 1000: 400}
"""Steps of training with so many labels per class, below the paper's scale."""
PAPER_STEPS = {10: 2_000, 100: 10_000}
"""An ASSUMPTION: the paper does not train with few labels."""


def trunk(scale: Scale) -> ViT:
    """AIM-0.6B, or a small trunk that reads 16 patches of 7 px."""
    return encoder(scale) if scale == "paper" else attrs.evolve(encoder(scale), patch_size=7)


def data(scale: Scale, train: Source | None = None, **changes: Any) -> Data:
    """The data of all runs: equal labels, tests and normalisation, whatever is trained on."""
    known = experiment("default", scale).data
    if scale != "paper":
        statistics = BundledFashionMNIST().statistics
        changes = {"mean": statistics.mean, "std": statistics.std, **changes}
    return attrs.evolve(known, train=train or known.train, probe_train=known.train, **changes)


def unlabelled(scale: Scale) -> Source | None:
    """The whole of Fashion-MNIST where it is installed; None is the source of the labels."""
    whole = FashionMNIST()
    return whole if scale == "small" and Path(whole.root).is_dir() else None


def probes(scale: Scale) -> tuple[Probe, ...]:
    """Probes of the mean token, of all tokens, and of tokens by attention; nearest neighbours. All labels or few."""
    if scale == "paper":
        return tuple(experiment("default", scale).probes)
    short: dict[str, Any] = {"learning_rates": (1e-3, 4e-3), "epochs": 10, "batch_size": 256, "min_steps": 200}
    if scale == "smoke":
        short = {**short, "epochs": 1, "min_steps": 0}
    return LinearProbe(**short), LinearTokensProbe(**short), AttentiveProbe(**short, num_heads=4), KNNProbe()


def pretrained(scale: Scale) -> Experiment:
    """Next-patch prediction without labels, and all probes."""
    num_steps = {"smoke": 8, "small": 1200, "paper": ABLATION_STEPS}[scale]
    changes: dict[str, Any] = {}
    if scale != "paper":
        changes = {
            "data": data(scale, unlabelled(scale), batch_size=16 if scale == "smoke" else 64),
            "optimizer": AdamW(peak_lr=2e-3, weight_decay=0.05),
        }
    return experiment(
        PRETRAINED,
        scale,
        trunk=trunk(scale),
        objective=NextPatch(head=head(scale)),
        num_steps=num_steps,
        probes=probes(scale),
        probe_labels_per_class=LABELS[scale],
        probe_label_draws=1 if scale == "smoke" else 3,
        **changes,
    )


def with_labels(scale: Scale, name: str, per_class: int, draw: int, weights: Weights | None) -> Experiment:
    """The trunk and a linear layer, trained on ``per_class`` labelled images of each class."""
    num_steps = (PAPER_STEPS if scale == "paper" else STEPS)[per_class]
    few = FewLabels(source=data(scale).train, per_class=per_class, draw=draw)
    batch_size = {"smoke": 8, "small": 64, "paper": 1024}[scale]
    return experiment(
        f"{name}-{per_class}-{draw}",
        scale,
        trunk=trunk(scale),
        objective=Classification(num_classes=1000 if scale == "paper" else 10),
        data=data(scale, few, batch_size=batch_size, augmentation=Augmentation(crop_scale=(0.6, 1.0))),
        num_steps=num_steps,
        optimizer=AdamW(peak_lr=1e-3, weight_decay=0.05),
        schedule=Schedule(warmup_steps=num_steps // 10),
        probes=(),
        initial_weights=weights,
        checkpoint_every=None,
    )


def study(scale: Scale) -> Study:
    """Pre-training with probes, then fine-tuning and training from scratch on the same few images."""
    experiments, points = [pretrained(scale)], []
    starts = {"fine-tuned": Weights(experiment=PRETRAINED), "from scratch": None}
    for per_class in LABELS[scale]:
        for curve, weights in starts.items():
            name = curve.replace(" ", "-")
            runs = [with_labels(scale, name, per_class, draw, weights) for draw in range(NUM_DRAWS[scale])]
            experiments += runs
            points.append(LabelPoint(curve=curve, per_class=per_class, experiments=[run.name for run in runs]))
    source = "arXiv:2401.08541, which measures nothing with few labels"
    return Study(name="few-labels", source=source, experiments=experiments, label_points=points)
