"""Folders of studies that were never run: everything a report is drawn from, made up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aimcore.io.run_folder import SAMPLES_FILE
from aimcore.report import EvaluationSummary, ExperimentSummary, LossSummary, ProbeSummary, Summary, write_summary
from aimcore.report.sample_files import SampleArrays, save_samples

HOSTILE = "<script>alert(1)</script>&\"'$x_1$</svg>"
"""A name that breaks out of everything that does not escape it: HTML, attributes, SVG, mathematical text."""

NATIVE_LINES = (
    {"step": 0, "losses": {"image": 1.0}, "area": 8, "num_images": 8, "num_patches": 64, "padding_share": 0.1},
    {"step": 1, "losses": {"image": 1.0}, "area": 30, "num_images": 2, "num_patches": 60, "padding_share": 0.3},
)
"""Metrics of two steps at native resolution."""


def make_study(
    out: Path,
    names: Sequence[str],
    probes: Sequence[str] = ("linear",),
    evaluations: Sequence[str] = (),
    *,
    only_seeds_differ: bool = False,
    pictured: bool = True,
) -> Path:
    """A finished study of experiments called ``names``, whose files lie in folders ``0``, ``1``, ...

    Drawing pictures takes most of the time of a report: tests of its text do without (``pictured=False``).
    """
    entries = tuple(
        entry(name, f"{number}/recipe.json", number, probes, evaluations) for number, name in enumerate(names)
    )
    out.mkdir(parents=True, exist_ok=True)
    machine = {"platform": "a machine", "num_cores": 2, "gpus": []}
    summary = Summary(study="made-up", source="arXiv:0, Table 9", scale="smoke", machine=machine, experiments=entries)
    write_summary(summary, out / "summary.json")
    for number, name in enumerate(names):
        make_run(out / str(number), name, number, ordering="raster" if only_seeds_differ else name)
        if not pictured:
            (out / str(number) / SAMPLES_FILE).unlink()
    return out


def entry(
    name: str, recipe: str, number: int, probes: Sequence[str], evaluations: Sequence[str] = ()
) -> ExperimentSummary:
    """A finished experiment: its trunk beats the untrained one and loses against raw pixels.

    With evaluations, the paper has a score of the last one and of one that was not run.
    """
    top1 = 0.8 - 0.01 * number
    score = ProbeSummary(top1=top1, ci95=(top1 - 0.01, top1 + 0.01), untrained_top1=0.5, raw_pixels_top1=0.9)
    card: dict[str, Any] = {
        "paper": "Table 11",
        "order": name,
        "settings": {"epochs": 100, "learning_rates": [1e-4, 1e-3]},
    }
    card["splits"] = {"train": {"source": {"name": "bundled_fashion_mnist", "split": "train"}, "num_images": 10800}}
    recall = EvaluationSummary(value=0.25, num=200, chance=0.3, ci95=(0.19, 0.31))
    others = [*evaluations[-1:], "vqav2"] if evaluations else []
    return ExperimentSummary(
        name=name,
        status="finished",
        seed=number,
        num_steps=100,
        losses={"next_patch": LossSummary(train_last_100=0.5, validation=0.4)},
        probes=dict.fromkeys(probes, score) or None,
        evaluations=dict.fromkeys(evaluations, recall) or None,
        paper={**dict.fromkeys(probes, 0.695), **dict.fromkeys(others, 0.9)} or None,
        extra={"protocols": dict.fromkeys(probes, card), "evaluation_protocols": dict.fromkeys(evaluations, card)},
        recipe=recipe,
    )


def make_run(folder: Path, name: str, number: int, ordering: str = "raster") -> None:
    """The files of one experiment."""
    folder.mkdir(parents=True)
    steps = np.arange(100)
    losses = 2 / (1 + steps / 10) + 0.1 * number + 0.05 * np.sin(steps)
    lines = [
        {"step": int(step), "losses": {"next_patch": float(loss)}} for step, loss in zip(steps, losses, strict=True)
    ]
    write_metrics(folder, lines)
    by_chunk = [None, *(0.5 - 0.01 * chunk for chunk in range(15))]
    (folder / "validation.json").write_text(json.dumps({"losses": {"next_patch": {"by_chunk": by_chunk}}}))
    (folder / "recipe.json").write_text(json.dumps(recipe(name, number, ordering)))
    save_samples(samples(), folder / SAMPLES_FILE)


def make_native(folder: Path) -> None:
    """Let the run in ``folder`` be one at native resolution: two steps of at most 64 patches."""
    path = folder / "recipe.json"
    values = json.loads(path.read_text())
    values["experiment"]["data"] = {"native": {"patches_per_step": 64}}
    path.write_text(json.dumps(values))
    write_metrics(folder, NATIVE_LINES)


def write_metrics(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """What a run logged."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def recipe(name: str, seed: int, ordering: str) -> dict[str, Any]:
    """The outline of a recipe."""
    objective = {"name": "next_patch", "ordering": ordering}
    experiment = {"name": name, "num_steps": 100, "objective": objective, "seed": seed}
    return {"aimcore": "0.1.0", "plugins": {"aimcore": {"version": "0.1.0"}}, "experiment": experiment}


def samples(**changes: Any) -> SampleArrays:
    """Two images of 3 x 4 patches of 2 px, read in raster order; all but the first patch predicted."""
    generator = np.random.default_rng(0)
    predicted_BN = np.ones((2, 12), dtype=bool)
    predicted_BN[:, 0] = False
    values: dict[str, Any] = {
        "made_from": "",
        "rows": 3,
        "columns": 4,
        "order_N": np.arange(12),
        "images_BHWC": generator.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8),
        "predicted_BHWC": generator.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8),
        "predicted_BN": predicted_BN,
        "uses_truth": True,
        "attention_BQN": generator.random((2, 3, 12)).astype(np.float16),
        "queries_Q": np.array([3, 6, 11]),
        "attention_kind": "causal",
    }
    return SampleArrays(**values | changes)
