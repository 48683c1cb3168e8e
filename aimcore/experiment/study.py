"""Experiments that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from aimcore.component import Checked, Problem, settings
from aimcore.experiment.run import Experiment

Scale = Literal["smoke", "small", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")
"""How large a study runs: seconds on any machine, minutes on two cores, or the paper's own size."""


@settings
class Study(Checked):
    """Experiments that belong together, usually one table or figure of a paper."""

    name: str
    experiments: Sequence[Experiment] = attrs.field(converter=tuple)
    source: str = ""
    """Where the comparison comes from, e.g. ``"arXiv:2401.08541, Table 3b"``."""
    paper: Mapping[str, Mapping[str, float]] = attrs.field(factory=dict)
    """The paper's scores (fractions) per experiment name and probe name."""

    def problems(self) -> Iterable[Problem]:
        """Names must be unique, and the paper's rows must belong to experiments."""
        names = [experiment.name for experiment in self.experiments]
        if not names:
            yield Problem("experiments", "a study needs at least one experiment")
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("experiments", f"two experiments are called {name!r}")
        for name in sorted(set(self.paper) - set(names)):
            yield Problem("paper", f"no experiment is called {name!r}; there are {names}")
