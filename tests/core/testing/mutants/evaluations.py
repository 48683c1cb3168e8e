"""Evaluations, each broken in one way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import numpy as np
import torch
from core.testing.mutants import masking

from aimcore import Batch, Evaluation, Objective, ObjectiveModule, Score, component
from aimcore.evaluation import OpenEvaluationData, share
from aimcore.testing.checks import evaluations as checks


@component("sound")
class Sound(Evaluation):
    """How many images have a first coordinate above zero."""

    def problems_with(self, objective: Objective) -> Iterable[str]:
        if "embed" not in objective.skills:
            yield "it embeds nothing"

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        _, rows = material.rows(lambda batch: module.embed_images(batch.images)[:, 0] > 0, material.validation)
        return {"positive": share(rows)}


@component("sound")
class Own(Sound):
    """How many images have a loss below one, for an objective that neither embeds nor captions."""

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        return (masking.Sound(),)

    def problems_with(self, objective: Objective) -> Iterable[str]:
        if not isinstance(objective, masking.Sound):
            yield "it masks nothing"

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        def rows_of(batch: Batch) -> torch.Tensor:
            per_position_BN = module(batch)["masked"].per_position_BN
            assert per_position_BN is not None
            return per_position_BN.nanmean(1) < 1

        return {"low": share(material.rows(rows_of, material.validation)[1])}


@component("unfitting")
class Unfitting(Own):
    """Fits nothing that the kit has, and brings nothing of its own."""

    @classmethod
    def objective_examples(cls) -> Sequence[Objective]:
        return ()


def changed(scores: Mapping[str, Score], **changes: object) -> dict[str, Score]:
    return {name: attrs.evolve(score, **changes) for name, score in scores.items()}


@component("mutant")
class Percent(Sound):
    """Gives percentages, chance among them."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        return changed(super().scores(module, material), chance=50.0)


@component("mutant")
class Empty(Sound):
    """Judges nothing."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        return changed(super().scores(module, material), num=0)


@component("mutant")
class Fickle(Sound):
    """Draws from torch's generator."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        return {"positive": share(torch.rand(1000) < 0.5)}


@component("mutant")
class Awakening(Sound):
    """Puts the module into training mode when it is done."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        scores = super().scores(module, material)
        module.train()
        return scores


@component("mutant")
class Tuning(Sound):
    """Changes a weight when it is done."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        scores = super().scores(module, material)
        list(module.parameters())[-1].add_(1)
        return scores


@component("mutant")
class Unwritable(Sound):
    """Gives NumPy's numbers."""

    def scores(self, module: ObjectiveModule, material: OpenEvaluationData) -> Mapping[str, Score]:
        return changed(super().scores(module, material), chance=np.float32(0.5))


@component("mutant")
class Raising(Sound):
    """Raises where it does not fit."""

    def problems_with(self, objective: Objective) -> Iterable[str]:
        if "embed" not in objective.skills:
            raise ValueError("it embeds nothing")
        return ()


@component("mutant")
class Hopeful(Sound):
    """Says nothing, and fails."""

    def problems_with(self, objective: Objective) -> Iterable[str]:
        return ()


SOUND = (Sound(), Own())
MUTANTS = (
    (checks.check_scores_are_shares_of_something, Percent()),
    (checks.check_scores_are_shares_of_something, Empty()),
    (checks.check_scores_are_the_same_every_time, Fickle()),
    (checks.check_the_module_is_left_as_it_was, Awakening()),
    (checks.check_the_module_is_left_as_it_was, Tuning()),
    (checks.check_scores_can_be_recorded, Unwritable()),
    (checks.check_misfits_are_reported_before_it_fails, Raising()),
    (checks.check_misfits_are_reported_before_it_fails, Hopeful()),
)
