"""Protocol cards: the information that is needed to compare a score with other work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from aimcore.contracts.evaluations import Evaluation
from aimcore.contracts.objectives import Objective
from aimcore.contracts.orderings import Ordering
from aimcore.contracts.probes import Probe
from aimcore.contracts.results import Score
from aimcore.evaluation.evaluation_data import OpenEvaluationData
from aimcore.evaluation.feature_tables import FeatureKind
from aimcore.evaluation.few_labels import FEW_HELD_OUT
from aimcore.evaluation.probe_images import ProbeImages, probe_sources
from aimcore.evaluation.probe_sizes import ProbeSize, probe_sizes
from aimcore.evaluation.raw_pixels import DESCRIPTIONS
from aimcore.experiment import Experiment
from aimcore.recipe.writing import plain

HELD_OUT = 0.1
"""Fraction of the training images on which settings are chosen."""
HELD_OUT_RULE = f"{HELD_OUT:.0%} of each training class, by hash of the image's number"
_AT_OWN_SIZE = "not measured here: probed at the experiment's own image size only"
_NO_AUGMENTATION = "none: probes train on features of the evaluation transform (the papers augment)"
_STORED = "computed once per image, and read in every epoch (quick; not the papers' protocol)"
_LIVE = "of training images: computed in every epoch, from another crop; of held-out and test images: computed once"
SELECTION = "chosen on held-out train; the papers report the best of the grid and describe no held-out choice"


def protocol_card(
    images: ProbeImages,
    probe: Probe,
    kind: FeatureKind,
    *,
    sizes: Mapping[str, int],
    choices: Mapping[str, Mapping[str, Any]],
    num_layer_candidates: int = 0,
) -> dict[str, Any]:
    """Describe how ``probe`` was trained and tested, as plain values for a JSON file.

    Args:
        images: the images for probes.
        probe: the probe; the card contains all its settings.
        kind: the kind of features that it read.
        sizes: number of readable images in the splits ``"train"``, ``"held_out"`` and ``"test"``.
        choices: settings that the probe chose on the trained trunk, on the untrained trunk, and on raw pixels.
        num_layer_candidates: number of sets of layers among which the layers were chosen; 0 if they are fixed.
    """
    experiment = images.experiment
    return {
        "probe": probe.name,
        "paper": probe.paper,
        "departures": list(probe.departures()),
        "settings": attrs.asdict(probe),  # type: ignore[arg-type]  # components are attrs classes
        "splits": _splits(experiment, sizes),
        "train_images": _train_images(sizes, len(images.train)),
        "num_classes": images.num_classes,
        "held_out_rule": HELD_OUT_RULE if probe.holds_out else "none is held out",
        "selection": SELECTION if probe.holds_out else "nothing is chosen",
        "reads": kind.reads,
        "pooling": kind.pooling if kind.reads == "pooled" else None,
        "layers": list(kind.layers),
        **({"layers_chosen": _layers_chosen(num_layer_candidates)} if num_layer_candidates else {}),
        "layer_outputs": "raw, averaged" if kind.layers else "the trunk's own output, after its final norm",
        "raw_pixels": DESCRIPTIONS[kind.reads] if images.size.is_own else _AT_OWN_SIZE,
        "untrained": "the same trunk with fresh weights" if images.size.is_own else _AT_OWN_SIZE,
        "size": _size(images.size),
        "attention": experiment.probe_attention,
        "order": _order(experiment.objective),
        "transform": images.size.transform(experiment.data),
        "protocol": probe.protocol,
        "augmentation": _NO_AUGMENTATION if probe.augmentation is None else plain(probe.augmentation),
        "features": _STORED if probe.augmentation is None else _LIVE,
        "precision": experiment.engine.precision,
        "seed": experiment.seed,
        "few_labels": _few_labels(experiment) if images.size.is_own else None,
        "choices": {name: dict(choice) for name, choice in choices.items()},
    }


def evaluation_card(data: OpenEvaluationData, evaluation: Evaluation, scores: Mapping[str, Score]) -> dict[str, Any]:
    """Describe how ``scores`` were measured, as plain values for a JSON file.

    Args:
        data: the evaluation data.
        evaluation: the evaluation; the card contains all its settings.
        scores: the scores of the evaluation.
    """
    experiment, text = data.experiment, data.tokenizer
    return {
        "evaluation": evaluation.name,
        "paper": evaluation.paper,
        "settings": attrs.asdict(evaluation),  # type: ignore[arg-type]  # components are attrs classes
        "judged": {name: score.num for name, score in scores.items()},
        **evaluation.protocol(data),
        "text": None if text is None else {"tokenizer": text[0].name, "context_length": text[1]},
        "order": _order(experiment.objective),
        "transform": next(probe_sizes(experiment)).transform(experiment.data),
        "precision": experiment.engine.precision,
    }


def _layers_chosen(num_candidates: int) -> str:
    return (
        f"among {num_candidates}, by accuracy on held-out train; the paper reports the best layers and describes no "
        "held-out choice"
    )


def _splits(experiment: Experiment, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return source and number of images of each split; held-out images are from the training source."""
    train, test = probe_sources(experiment)
    sources = {"train": plain(train), "held_out": "as train", "test": plain(test)}
    return {split: {"source": sources[split], "num_images": size} for split, size in sizes.items()}


def _few_labels(experiment: Experiment) -> str | None:
    """Describe how the probe was fitted again with few labels."""
    if not experiment.probe_labels_per_class:
        return None
    numbers = ", ".join(map(str, experiment.probe_labels_per_class))
    return (
        f"fitted again with {numbers} images per class, in {experiment.probe_label_draws} draws by hash of (draw, "
        f"image's number), of which settings are chosen on {FEW_HELD_OUT:.0%}; the subsets of a draw are nested"
    )


def _train_images(sizes: Mapping[str, int], available: int) -> dict[str, Any]:
    """Return how many images of the training source were read, including held-out ones."""
    used = sizes["train"] + sizes["held_out"]
    rule = "all" if used == available else "by hash of the image's number, among those that could be read"
    return {"used": used, "available": available, "chosen": rule}


def _order(objective: Objective) -> str:
    """Return the name of the objective's ordering; an objective without one reads in raster order."""
    parts = (getattr(objective, field.name) for field in attrs.fields(type(objective)))  # type: ignore[arg-type]
    return ", ".join(part.name for part in parts if isinstance(part, Ordering)) or "raster"


def _size(size: ProbeSize) -> str:
    return f"{size.image_size} px" if size.native_area is None else f"native, up to {size.native_area} patches"
