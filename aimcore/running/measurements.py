"""The measurements of one run, and their entry in ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from aimcore.engine import TrainingResult
from aimcore.evaluation.objective_scores import Evaluated
from aimcore.evaluation.probing import ProbeScore
from aimcore.evaluation.validation import Validation
from aimcore.experiment import Experiment
from aimcore.io.run_folder import RECIPE_FILE
from aimcore.running.correctness import Correctness
from aimcore.running.omitted_samples import LeftOut, joined
from aimcore.running.resampling import Interval, bootstrap_interval
from aimcore.running.summary import (
    NUM_CHUNKS,
    EvaluationSummary,
    ExperimentSummary,
    FewLabelsSummary,
    LayersSummary,
    LossSummary,
    ParametersSummary,
    ProbeSummary,
    Status,
)


@attrs.define
class Measurements:
    """The measurements of a run so far; None for those that it has not reached."""

    parent: Mapping[str, Any] | None = None
    """Description of the checkpoint or weights of another run with which the run began."""
    training: TrainingResult | None = None
    validation: Validation | None = None
    evaluations: Evaluated | None = None
    probes: Mapping[str, ProbeScore] | None = None
    left_out: list[LeftOut | None] = attrs.field(factory=list)
    """Counts of failed reads, in the order of their discovery."""

    def entry(
        self,
        experiment: Experiment,
        status: Status,
        *,
        error: str | None = None,
        paper: Mapping[str, float] | None = None,
    ) -> ExperimentSummary:
        """Return the summary's entry of a run that ended with ``status``; ``error`` is the reason, in one line."""
        training, validation = self.training, self.validation
        if status == "finished" and training is not None:
            status = training.status
        return ExperimentSummary(
            name=experiment.name,
            status=status,
            seed=experiment.seed,
            num_steps=self._num_steps(experiment, status),
            losses=self._losses(),
            validation_total=None if validation is None else validation.total,
            validation_prefix=experiment.objective.validation_prefix,
            validation_loss_by_chunk=_by_chunk(validation),
            probes=probe_summaries(self.probes or {}) or None,
            evaluations=evaluation_summaries(self.evaluations) or None,
            paper=paper,
            patches_per_second=None if training is None else training.patches_per_second,
            seconds=None if training is None else training.seconds,
            peak_memory=None if training is None else training.peak_memory,
            data_share=None if training is None else training.data_share,
            parameters=None if training is None else _parameters(training),
            left_out=joined(*self.left_out),
            extra=self._extra(error),
            recipe=f"{experiment.name}/{RECIPE_FILE}",
        )

    def _num_steps(self, experiment: Experiment, status: Status) -> int | None:
        if self.training is not None:
            return self.training.num_steps
        return 0 if status == "finished" and experiment.num_steps == 0 else None

    def _losses(self) -> Mapping[str, LossSummary] | None:
        trained = {} if self.training is None else self.training.losses
        validated = {} if self.validation is None else {n: loss.mean for n, loss in self.validation.losses.items()}
        names = dict.fromkeys((*trained, *validated))
        losses = {name: LossSummary(train_last_100=trained.get(name), validation=validated.get(name)) for name in names}
        return losses or None

    def _extra(self, error: str | None) -> dict[str, Any]:
        found = {
            "error": error,
            "protocols": probe_cards(self.probes or {}) or None,
            "evaluation_protocols": None if self.evaluations is None else evaluation_cards(self.evaluations),
            "missing_metrics": None if self.training is None else self.training.missing_metrics or None,
            "begun_with": None if self.parent is None else dict(self.parent),
        }
        return {name: value for name, value in found.items() if value is not None}


def _parameters(training: TrainingResult) -> ParametersSummary:
    count = training.parameters
    return ParametersSummary(
        trunk=count.trunk, trunk_trained=count.trunk_trained, total=count.total, trained=count.trained
    )


def probe_summaries(scores: Mapping[str, ProbeScore]) -> dict[str, ProbeSummary]:
    """Convert scores of probes to entries of the summary."""
    return {
        name: ProbeSummary(
            top1=score.top1,
            ci95=score.ci95,
            bootstrap95=bootstrap_interval(score.right_n.numpy()),
            correct=Correctness.of(score.right_n.numpy(), score.test_images),
            untrained_top1=score.untrained_top1,
            raw_pixels_top1=score.raw_pixels_top1,
            over_untrained95=_over(score, "untrained"),
            over_raw_pixels95=_over(score, "raw_pixels"),
            learning_rate=score.learning_rate,
            layers=score.layers,
            candidates=_candidates(score),
            few_labels=_few_labels(score) or None,
        )
        for name, score in scores.items()
    }


def _few_labels(score: ProbeScore) -> tuple[FewLabelsSummary, ...]:
    trained = score.by_labels.get("trained", {})
    others = {name: score.by_labels.get(name, {}) for name in ("untrained", "raw_pixels")}
    return tuple(
        FewLabelsSummary(per_class=number, trained=values, **{name: by.get(number) for name, by in others.items()})
        for number, values in sorted(trained.items())
    )


def _over(score: ProbeScore, baseline: str) -> Interval | None:
    """Return the interval of the paired difference between the trained trunk and a baseline, image by image."""
    right_n = score.baselines.get(baseline)
    if right_n is None or len(right_n) != len(score.right_n):
        return None
    return bootstrap_interval(score.right_n.double().numpy() - right_n.double().numpy())


def _candidates(score: ProbeScore) -> tuple[LayersSummary, ...] | None:
    found = [
        LayersSummary(layers=one.layers, held_out_top1=one.held_out_top1, top1=one.outcome.top1)
        for one in score.candidates
    ]
    return tuple(found) or None


def evaluation_summaries(evaluated: Evaluated | None) -> dict[str, EvaluationSummary]:
    """Convert scores of evaluations to entries of the summary."""
    return {
        name: EvaluationSummary(value=score.value, num=score.num, chance=score.chance, ci95=score.ci95)
        for name, score in (evaluated.scores.items() if evaluated is not None else ())
    }


def probe_cards(scores: Mapping[str, ProbeScore]) -> dict[str, dict[str, Any]]:
    """Return the protocol card of each probe."""
    return {name: dict(score.card) for name, score in scores.items()}


def evaluation_cards(evaluated: Evaluated) -> dict[str, dict[str, Any]]:
    """Return the protocol card of each evaluation."""
    return {name: dict(card) for name, card in evaluated.cards.items()}


def _by_chunk(validation: Validation | None) -> tuple[float | None, ...] | None:
    """Return the chunks of the only loss with positions in the reading order; None for no such loss or several."""
    chunks = [loss.by_chunk(NUM_CHUNKS) for loss in validation.losses.values()] if validation is not None else []
    present = [values for values in chunks if values is not None]
    return present[0] if len(present) == 1 else None
