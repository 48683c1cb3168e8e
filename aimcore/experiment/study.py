"""Studies: experiments that belong together, and which of them form scaling curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from aimcore.contracts import limits
from aimcore.contracts.component import Checked, at_least, settings, within
from aimcore.contracts.errors import InvalidValue, Problem
from aimcore.experiment.experiment import Experiment
from aimcore.experiment.names import study_name_problems


@settings
class Scaling(Checked):
    """Experiments that show how a loss depends on samples, size and compute (arXiv:2411.14402, Figure 2)."""

    curves: Mapping[str, Sequence[str]]
    """Names of the experiments that are the points of each curve, usually a size of the trunk. Each experiment is
    trained to its own end."""
    others: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    """Names of experiments that are shown next to a curve but are not its points, such as a run without cooldown."""
    loss: str | None = None
    """Name of the validation loss that is compared; None takes the weighted total."""

    @property
    def points(self) -> tuple[str, ...]:
        """All experiments that are named."""
        return tuple(name for part in (self.curves, self.others) for names in part.values() for name in names)

    def problems(self) -> Iterable[Problem]:
        """Yield an empty set of curves, unknown curves, and experiments that are named more than once."""
        if not self.curves:
            yield Problem("curves", "must name the experiments of at least one curve")
        for curve in sorted(set(self.others) - set(self.curves)):
            yield Problem("others", f"no curve is called {curve!r}; there are {list(self.curves)}")
        for name in sorted({name for name in self.points if self.points.count(name) > 1}):
            yield Problem("curves", f"{name!r} is named more than once")


@settings
class LabelPoint(Checked):
    """A point of a curve of accuracy against the number of labels: experiments that train on so many labels."""

    curve: str
    """Name of the curve, such as ``"fine-tuned"`` or ``"from scratch"``."""
    per_class: int
    """Number of labelled images of each class."""
    experiments: Sequence[str] = attrs.field(converter=tuple)
    """Names of the experiments, usually one for each draw of the images. Curves are compared in this order."""
    error: str = "error"
    """Name of the validation loss that is the fraction of misclassified images."""

    def problems(self) -> Iterable[Problem]:
        """Yield a point without experiments, and a number of labels below 1."""
        yield from at_least("per_class", self.per_class, 1, limits.IMAGES)
        if not self.experiments:
            yield Problem("experiments", "must name at least one experiment")


@settings
class Study(Checked):
    """Experiments that belong together, usually one table or figure of a paper."""

    name: str
    experiments: Sequence[Experiment] = attrs.field(converter=tuple)
    source: str = ""
    """Source of the comparison, e.g. ``"arXiv:2401.08541, Table 3b"``."""
    paper: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    """The paper's scores (fractions) by the name of the experiment, then by the name of a probe or of an evaluation's
    score (such as ``"retrieval/image_to_text@5"``). Other names are shown as "not run" in a separate table."""
    paper_only: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    """The paper's scores of rows that this study does not have, such as data sets that are missing here; by the name of
    the row. They are shown as "not run" too."""
    left_out: Sequence[Experiment] = attrs.field(factory=tuple, converter=tuple)
    """Experiments of the study that do not run now (``--only``). Other experiments may start with their weights or
    checkpoints."""
    scaling: Scaling | None = None
    """Curves of a scaling study; None for other studies."""
    label_points: Sequence[LabelPoint] = attrs.field(factory=tuple, converter=tuple)
    """Points of curves that show what training with few labels gives, for the report."""

    def over_seeds(self, num_seeds: int) -> Study:
        """Return this study with every experiment repeated with the seeds 0, 1, ... instead of its own.

        All experiments of a seed come before those of the next seed, so that a study that is stopped has compared its
        variants with some seeds. ``raster`` becomes ``raster-seed-0`` and so on; a branch or initial weights of another
        experiment become those of the same seed. The report and the terminal show mean and spread over seeds, and
        paired differences between the variants.

        Raises:
            InvalidValue: there is no seed, or this is a scaling study, whose curves are single runs.
        """
        if type(num_seeds) is not int:
            text = f"must be a whole number, got {num_seeds!r:.80}: with N, the seeds are 0 to N - 1"
            raise InvalidValue(f"Study {self.name!r}", [("num_seeds", text)])
        problems = [*at_least("num_seeds", num_seeds, 1)]
        if self.scaling is not None:
            problems.append(Problem("scaling", "a scaling study cannot be repeated with several seeds"))
        if problems:
            raise InvalidValue(f"Study {self.name!r}", problems)
        seeds = range(num_seeds)
        repeated = [_seeded(experiment, seed) for seed in seeds for experiment in self.experiments]
        left_out = [_seeded(experiment, seed) for seed in seeds for experiment in self.left_out]
        paper = {_seed_name(name, seed): scores for seed in seeds for name, scores in self.paper.items()}
        points = [
            attrs.evolve(point, experiments=[_seed_name(name, seed) for seed in seeds for name in point.experiments])  # type: ignore[misc]
            for point in self.label_points
        ]
        changed: Study = attrs.evolve(  # type: ignore[misc]
            self, experiments=repeated, left_out=left_out, paper=paper, label_points=points
        )
        return changed

    def problems(self) -> Iterable[Problem]:
        """Yield names that are duplicated or cannot be folders, and entries of experiments that do not exist."""
        yield from study_name_problems("name", self.name)
        names = [experiment.name for experiment in (*self.experiments, *self.left_out)]
        if not self.experiments:
            yield Problem("experiments", "a study needs at least one experiment")
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("experiments", f"two experiments are called {name!r}")
        for alike in _alike(set(names)):
            yield Problem(
                "experiments",
                f"{' and '.join(map(repr, alike))} differ only in case: some file systems have one folder for both",
            )
        for name in sorted(set(self.paper) - set(names)):
            yield Problem("paper", f"no experiment is called {name!r}; there are {names}")
        for name in sorted(set(self.paper_only).intersection(names)):
            yield Problem("paper_only", f"{name!r} is an experiment of this study: its scores belong in paper")
        for field, rows in (("paper", self.paper), ("paper_only", self.paper_only)):
            for name, scores in rows.items():
                for score, value in scores.items():
                    yield from within(f"{field}.{name}.{score}", value, 0, 1)
        points = self.scaling.points if self.scaling is not None else ()
        for name in sorted(set(points) - set(names)):
            yield Problem("scaling.curves", f"no experiment is called {name!r}; there are {names}")
        yield from self._label_problems(names)

    def _label_problems(self, names: Sequence[str]) -> Iterable[Problem]:
        for place, point in enumerate(self.label_points):
            for name in sorted(set(point.experiments) - set(names)):
                yield Problem(f"label_points.{place}", f"no experiment is called {name!r}; there are {names}")
        where = [(point.curve, point.per_class) for point in self.label_points]
        for curve, number in sorted({one for one in where if where.count(one) > 1}):
            yield Problem("label_points", f"curve {curve!r} has two points for {number} labels per class")


def _seed_name(name: str, seed: int) -> str:
    return f"{name}-seed-{seed}"


def _seeded(experiment: Experiment, seed: int) -> Experiment:
    """Return the experiment with another seed, which begins with other experiments of the same seed."""
    weights, branch = experiment.initial_weights, experiment.branch
    if isinstance(weights, tuple):
        weights = tuple(_of_seed(one, seed) for one in weights)
    elif weights is not None:
        weights = _of_seed(weights, seed)
    branch = None if branch is None else _of_seed(branch, seed)
    name = _seed_name(experiment.name, seed)
    changed: Experiment = attrs.evolve(  # type: ignore[misc]
        experiment, name=name, seed=seed, initial_weights=weights, branch=branch
    )
    return changed


def _of_seed(parent: Any, seed: int) -> Any:
    """Return weights or a branch of the same experiment with another seed; weights in a file are as they are."""
    name = parent.experiment
    return parent if name is None else attrs.evolve(parent, experiment=_seed_name(name, seed))


def _alike(names: Iterable[str]) -> Iterable[list[str]]:
    """Yield groups of names that differ only in case."""
    by_folded: dict[str, list[str]] = {}
    for name in sorted(names):
        by_folded.setdefault(name.casefold(), []).append(name)
    return (alike for alike in by_folded.values() if len(alike) > 1)
