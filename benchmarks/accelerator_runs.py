"""Whole runs on an accelerator: checkpoints that continue exactly, and studies with probes and evaluations."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import torch
from accelerator_rows import Finding, Row, Setting, at_most, attempted, relative_difference, worst
from torch import Tensor

from aimcore import Data, Engine, Experiment
from aimcore.engine import read_metrics, train
from aimcore.experiment.training import Precision
from aimcore.io.run_folder import RunFolder
from aimcore.running.study_files import load_study
from aimcore.running.study_run import run_study
from aimcore_heads import MLPHead
from aimcore_objectives import NextPatch
from aimcore_sources import BundledFashionMNIST
from aimcore_trunks import ViT

EXAMPLES = Path(__file__).parent.parent / "examples"
RESUME_BOUND = 1e-6
"""Largest relative difference of losses and weights from those of a run without an interruption."""
_STEPS, _SAVED_AT = 6, 3


def checkpoint_rows(setting: Setting) -> Iterator[Row]:
    """A run that is resumed in the middle ends as the run without an interruption does."""
    cases: list[tuple[int, Precision]] = [(0, "autocast")]
    if not setting.quick:
        cases += [(1, "bf16"), (2, "bf16"), (3, "autocast"), (3, "bf16")]
    for stage, precision in cases:
        check = f"resumed at step {_SAVED_AT} of {_STEPS}, stage {stage}, {precision}"
        yield attempted("checkpoints", check, lambda stage=stage, precision=precision: _resumed(stage, precision))


def _resumed(stage: int, precision: Precision) -> Finding:
    experiment = _experiment(stage, precision)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        expected = _train(experiment, whole)
        shutil.copytree(whole, cut)
        shutil.rmtree(RunFolder(cut).checkpoint(_STEPS))
        found = _train(experiment, cut, resume=True)
    difference = worst([relative_difference(one, other) for one, other in zip(found, expected, strict=True)])
    is_equal = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    return at_most(difference, RESUME_BOUND, " (every bit equal)" if is_equal else "")


def _experiment(stage: int, precision: Precision) -> Experiment:
    return Experiment(
        name="resumed",
        data=Data(
            train=BundledFashionMNIST(split="train"),
            validation=BundledFashionMNIST(split="test"),
            batch_size=16,
            image_size=28,
            eval_crop=1.0,
        ),
        trunk=ViT(width=64, depth=2, num_heads=2, patch_size=4),
        objective=NextPatch(head=MLPHead(width=64, depth=1)),
        num_steps=_STEPS,
        checkpoint_every=_SAVED_AT,
        engine=Engine(zero_stage=stage, precision=precision),  # type: ignore[arg-type]
    )


def _train(experiment: Experiment, folder: Path, *, resume: bool = False) -> list[Tensor]:
    """Return the losses of all steps, and the final weights."""
    result = train(experiment, folder, resume=resume, progress=False)
    weights = result.engine.full_state_dict()
    result.engine.close()
    losses = [line["losses"]["next_patch"] for line in read_metrics(folder)]
    return [torch.tensor(losses), *weights.values()]


def study_rows(setting: Setting) -> Iterator[Row]:
    """Experiments of the examples train, validate, are probed and evaluated, at the scale ``smoke``."""
    for name in ("ablation_pattern",) if setting.quick else ("ablation_pattern", "aimv2_captions"):
        yield attempted("studies", f"examples/{name}.py, smoke", lambda name=name: _study(name))


def _study(name: str) -> Finding:
    study = load_study(EXAMPLES / f"{name}.py", "smoke")
    kinds = {type(experiment.objective): experiment for experiment in study.experiments}
    study = attrs.evolve(study, experiments=list(kinds.values()), paper={})
    with tempfile.TemporaryDirectory() as folder:
        summary = run_study(study, Path(folder) / "out", scale="smoke")
    statuses = [entry.status for entry in summary.experiments]
    num_scores = sum(len(entry.probes or {}) + len(entry.evaluations or {}) for entry in summary.experiments)
    is_right = set(statuses) == {"finished"} and num_scores > 0
    return Finding(is_right, f"{', '.join(statuses)}; {num_scores} scores", "all finished, scores")
