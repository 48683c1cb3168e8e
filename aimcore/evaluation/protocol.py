"""The protocol card: what a reader must know to compare a probe's score with another's."""

from __future__ import annotations

from math import ceil
from typing import Any

import attrs

from aimcore.evaluation.features import FeatureKind
from aimcore.evaluation.probe_images import probe_sources
from aimcore.experiment import Data, Experiment
from aimcore.roles import Objective, Ordering, Probe

HELD_OUT = 0.1
"""Share of the training images that settings are chosen on."""
SELECTION = "chosen on held-out train; the papers report the best of the grid and describe no held-out choice"


def protocol_card(
    experiment: Experiment, probe: Probe, kind: FeatureKind, *, num_classes: int, sizes: dict[str, int]
) -> dict[str, Any]:
    """How ``probe`` was trained and tested, as plain values for a JSON file.

    Args:
        experiment: what was probed.
        probe: the probe, whose settings are written out in full.
        kind: what it was fed.
        num_classes: number of classes.
        sizes: images in the splits ``"train"``, ``"held_out"`` and ``"test"``; unreadable ones are not among them.
    """
    train, test = probe_sources(experiment)
    sources = {"train": train.name, "held_out": train.name, "test": test.name}
    return {
        "probe": probe.name,
        "paper": probe.paper,
        "settings": attrs.asdict(probe),  # type: ignore[arg-type]  # components are attrs classes
        "splits": {split: {"source": sources[split], "num_images": size} for split, size in sizes.items()},
        "num_classes": num_classes,
        "held_out_rule": f"{HELD_OUT:.0%} of each training class, by hash of the image's number",
        "selection": SELECTION,
        "reads": kind.reads,
        "layers": list(kind.layers),
        "layer_outputs": "raw, averaged" if kind.layers else "the trunk's own output, after its final norm",
        "attention": experiment.probe_attention,
        "order": _order(experiment.objective),
        "transform": _transform(experiment.data),
        "augmentation": "none: probes train on features of the evaluation transform (the papers augment)",
        "precision": experiment.engine.precision,
        "seed": experiment.seed,
    }


def _order(objective: Objective) -> str:
    """The name of the objective's ordering; an objective without one reads in raster order."""
    parts = (getattr(objective, field.name) for field in attrs.fields(type(objective)))  # type: ignore[arg-type]
    return ", ".join(part.name for part in parts if isinstance(part, Ordering)) or "raster"


def _transform(data: Data) -> str:
    short_side = ceil(data.image_size / data.eval_crop)
    return (
        f"short side to {short_side} px (bicubic), centre crop to {data.image_size} px, "
        f"mean {list(data.mean)}, std {list(data.std)}"
    )
