"""Checks of the data: they open sources, and read a few samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import attrs

from aimcore.contracts.errors import AimcoreError, Problem
from aimcore.contracts.objectives import Objective
from aimcore.contracts.sources import OpenSource, Source
from aimcore.data.captions import has_captions
from aimcore.data.extras import missing_extras
from aimcore.evaluation.evaluation_data import OpenEvaluationData
from aimcore.evaluation.probing import check_probes
from aimcore.experiment import Data, Experiment

Opened = Callable[[Source], OpenSource]
"""Opens a source, or returns the opened source if it is open already."""


def source_problems(data: Data, opened: Opened) -> Iterator[Problem]:
    """Yield sources of ``data`` that cannot be opened, have no images, or do not count what they leave out."""
    fields = attrs.asdict(cast(Any, data), recurse=False)
    for field, source in fields.items():
        if isinstance(source, Source):
            yield from (Problem(f"data.{field}", text) for text in _problems_with(source, opened))


def _problems_with(source: Source, opened: Opened) -> Iterator[str]:
    try:
        images = opened(source)
    except AimcoreError as error:
        yield str(error)
        return
    if not len(images):
        yield f"source {source.name!r} has no images"
        return
    counts: object = images.left_out  # a plugin's, which a summary must be able to hold
    if not isinstance(counts, Mapping) or not all(
        isinstance(reason, str) and type(count) is int and count >= 0 for reason, count in counts.items()
    ):
        yield f"left_out of {type(images).__name__} must be {{reason: count}}, with counts from 0, got {counts!r:.80}"


def caption_problems(objective: Objective, data: Data, opened: Opened) -> Iterator[Problem]:
    """Yield sources without captions, where ``objective`` reads text; a few samples show whether there are any."""
    if objective.text is None:
        return
    for field, source in _trained_on(data):
        if not has_captions(opened(source), data.caption_weights):
            kinds = "" if data.caption_weights is None else f" of {' or '.join(map(repr, data.caption_weights))}"
            yield Problem(
                f"data.{field}",
                f"the objective reads text, but the first samples of source {source.name!r} have no caption{kinds}: "
                "use a captioned source, or change data.caption_weights",
            )


def extra_problems(objective: Objective, data: Data, opened: Opened) -> Iterator[Problem]:
    """Yield sources whose samples lack what ``objective`` asks for in ``extras`` or renders as a view."""
    for field, source in _trained_on(data):
        for missing in missing_extras(opened(source), objective.views, objective.extras):
            yield Problem(
                f"data.{field}",
                f"objective {objective.name!r} reads the extra {missing}, which the first samples of source "
                f"{source.name!r} do not have: use a source that gives it in Sample.extras",
            )


def objective_problems(objective: Objective, data: Data, opened: Opened) -> Iterator[Problem]:
    """Yield what the training and validation data lack for ``objective``."""
    for field, source in _trained_on(data):
        yield from (Problem(f"data.{field}", text) for text in objective.problems_with_data(opened(source)))


def evaluation_problems(experiment: Experiment, opened: Opened) -> Iterator[Problem]:
    """Yield what the data of ``experiment`` lack for its evaluations."""
    if experiment.evaluations:
        data = OpenEvaluationData.of(experiment, opened=opened)
        for number, evaluation in enumerate(experiment.evaluations):
            yield from (Problem(f"evaluations.{number}", text) for text in evaluation.problems_with_data(data))


def probe_problems(experiment: Experiment, opened: Opened) -> Iterable[Problem]:
    """Raise if the probes of ``experiment`` cannot be fitted and tested on its data.

    Raises:
        InvalidValue: the probes cannot be fitted or tested; lists every problem with its path.
    """
    check_probes(experiment, opened)
    return ()


def _trained_on(data: Data) -> tuple[tuple[str, Source], ...]:
    return ("train", data.train), ("validation", data.validation)
