"""What can be known to fail before time is spent, for all experiments of a study at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
from loguru import logger

from aimcore.contracts.errors import AimcoreError, InvalidValue, Problem
from aimcore.contracts.messages import shown
from aimcore.contracts.sources import OpenSource, Source
from aimcore.data.captions import has_captions
from aimcore.data.sampling import require_even_batches
from aimcore.engine.freezing import problems_of
from aimcore.engine.initial_weights import check_weights
from aimcore.engine.module_building import module_on_meta
from aimcore.engine.weights_advice import weights_advice
from aimcore.evaluation.feature_cache import FeatureCache
from aimcore.evaluation.probing import check_probes
from aimcore.experiment import Data, Experiment, Study
from aimcore.recipe import checked
from aimcore.running.left_out import LeftOut, left_out_of, left_out_problems
from aimcore.running.objective_evaluations import problems_of_evaluation_data, problems_of_evaluations
from aimcore.running.parents import beginning_problems


def check_study(
    study: Study,
    *,
    world_size: int = 1,
    with_data: bool = True,
    out: Path | None = None,
    features_cache: str | None = None,
) -> dict[str, LeftOut]:
    """Check every experiment of ``study``.

    Its recipe must make the experiment again, its batch must divide over the processes, its sources must open and hold
    what its objective reads, its initial weights must fit, the run it branches from must be one that it may leave, its
    evaluations must be possible, and its probes need labels. (That the parts fit each other, an experiment has checked
    when it was made.)

    Args:
        study: what is about to run.
        world_size: number of processes.
        with_data: whether to open the sources; a dry run does not.
        out: the folder it is to run in, which may hold what some experiments begin with; None does not look.
        features_cache: fsspec URL where features are to be kept.

    Returns:
        What the sources of each experiment leave out; nothing without data.

    Raises:
        InvalidValue: all that is wrong, each problem with its path.
    """
    sources = _Sources() if with_data else None
    problems = [
        Problem(f"{experiment.name}.{problem.path}" if problem.path else experiment.name, problem.message)
        for experiment in study.experiments
        for problem in (
            *_problems_of(experiment, world_size, sources),
            *beginning_problems(experiment, study, out),
        )
    ]
    problems += [*_tracker_problems(study.experiments), *cache_problems(features_cache)]
    if problems:
        raise InvalidValue(f"study {study.name!r}", problems)
    _advise(study.experiments)
    if sources is None:
        return {}
    return {one.name: left_out_of(one.data, sources.opened) for one in study.experiments}


def check_experiment(
    experiment: Experiment,
    *,
    world_size: int,
    out: Path,
    features_cache: str | None = None,
    paper: Mapping[str, float] | None = None,
) -> LeftOut:
    """Check an experiment that runs alone, as :func:`check_study` does, and return what its sources leave out.

    ``paper`` holds the paper's scores, which are fractions.

    Raises:
        InvalidValue: all that is wrong, each problem with its path.
    """
    alone = Study(name=experiment.name, experiments=[experiment], paper={experiment.name: paper or {}})
    sources = _Sources()
    problems = [
        *_problems_of(experiment, world_size, sources),
        *beginning_problems(experiment, alone, out),
        *_tracker_problems([experiment]),
        *cache_problems(features_cache),
    ]
    if problems:
        raise InvalidValue(f"experiment {experiment.name!r}", problems)
    _advise([experiment])
    return left_out_of(experiment.data, sources.opened)


def _tracker_problems(experiments: Sequence[Experiment]) -> Iterator[Problem]:
    """Refuse trackers whose runs would replace each other's metrics."""
    owners: dict[str, str] = {}
    for experiment in experiments:
        for number, tracker in enumerate(experiment.trackers):
            path, place = f"{experiment.name}.trackers.{number}", tracker.destination(experiment.name)
            if place is not None and owners.setdefault(place, path) != path:
                cure = "give each run a place of its own, as by '{run}' in a url"
                yield Problem(path, f"writes to {shown(place)}, as {owners[place]} does: {cure}")


def _advise(experiments: Sequence[Experiment]) -> None:
    """Log what trunks say of the weights that they begin with, each text once."""
    if all(experiment.initial_weights is None for experiment in experiments):
        return

    for text in dict.fromkeys(text for experiment in experiments for text in weights_advice(experiment)):
        logger.warning("initial weights: {}", text)


def cache_problems(url: str | None) -> Iterator[Problem]:
    """Features are kept after training: that they can be must be known before."""
    if url is not None:
        try:
            FeatureCache(url)
        except InvalidValue as error:
            yield from (Problem("features_cache", message) for _, message in error.problems)


def _problems_of(experiment: Experiment, world_size: int, sources: _Sources | None) -> Iterator[Problem]:
    try:
        checked(experiment)
    except AimcoreError as error:
        yield Problem("", str(error))
    try:
        require_even_batches(experiment.data, world_size, experiment.engine.accumulation_steps)
    except InvalidValue as error:
        yield from (Problem(f"data.{path}", message) for path, message in error.problems)
    text_problems = list(_text_problems(experiment))
    yield from text_problems
    if not text_problems:  # without its vocabulary no objective can be built
        yield from _weight_problems(experiment)
    yield from problems_of_evaluations(experiment)
    if sources is not None:
        yield from _data_problems(experiment, sources)


def _text_problems(experiment: Experiment) -> Iterator[Problem]:
    """The vocabulary must be there, be the one recorded, and leave room for text."""
    if experiment.objective.text is not None:
        tokenizer, context_length = experiment.objective.text
        try:
            tokenizer.encode([""], context_length)
        except AimcoreError as error:
            yield Problem("objective.tokenizer", str(error))


def _weight_problems(experiment: Experiment) -> Iterator[Problem]:
    """There are not too many parameters, what is frozen is there, and initial weights fit: without any in memory."""
    try:
        module = module_on_meta(experiment)
    except InvalidValue as error:
        yield from (Problem(path, message) for path, message in error.problems)
        return
    yield from problems_of(module, experiment.frozen)
    if experiment.initial_weights is not None and experiment.initial_weights.url is not None:
        try:
            check_weights(experiment, module)
        except AimcoreError as error:
            yield Problem("initial_weights", str(error))


def _data_problems(experiment: Experiment, sources: _Sources) -> Iterator[Problem]:
    given = attrs.asdict(cast(Any, experiment.data), recurse=False)
    problems = [
        Problem(f"data.{field}", text)
        for field, source in given.items()
        if isinstance(source, Source)
        for text in sources.problems_of(source)
    ]
    yield from problems
    if not problems:
        if experiment.objective.text is not None:
            yield from _caption_problems(experiment.data, sources)
        yield from _misfits(experiment, sources)
        yield from problems_of_evaluation_data(experiment, sources.opened)
        try:
            check_probes(experiment, sources.opened)
        except InvalidValue as error:
            yield from (Problem(path, message) for path, message in error.problems)


def _misfits(experiment: Experiment, sources: _Sources) -> Iterator[Problem]:
    """What is trained on and validated with must be what the objective needs."""
    data = experiment.data
    for field, source in (("train", data.train), ("validation", data.validation)):
        found = experiment.objective.problems_with_data(sources.opened(source))
        yield from (Problem(f"data.{field}", text) for text in found)


def _caption_problems(data: Data, sources: _Sources) -> Iterator[Problem]:
    """What is trained on and validated with needs captions; a few samples tell whether there are any."""
    for field, source in (("train", data.train), ("validation", data.validation)):
        if not has_captions(sources.opened(source), data.caption_weights):
            kinds = "" if data.caption_weights is None else f" of {' or '.join(map(repr, data.caption_weights))}"
            yield Problem(
                f"data.{field}",
                f"the objective reads text, but the first samples of source {source.name!r} have no caption{kinds}: "
                "use a captioned source, or change data.caption_weights",
            )


class _Sources:
    """Sources that were opened for the checks, each once: the experiments of a study mostly share theirs."""

    def __init__(self) -> None:
        self._known: list[tuple[Source, OpenSource | AimcoreError]] = []

    def problems_of(self, source: Source) -> Iterator[str]:
        """Why ``source`` cannot be used; nothing where it can."""
        opened = self._open(source)
        if isinstance(opened, AimcoreError):
            yield str(opened)
        elif not len(opened):
            yield f"source {source.name!r} has no images"
        else:
            yield from left_out_problems(opened)

    def opened(self, source: Source) -> OpenSource:
        """A source without problems, open."""
        opened = self._open(source)
        assert not isinstance(opened, AimcoreError)
        return opened

    def _open(self, source: Source) -> OpenSource | AimcoreError:
        for known, opened in self._known:
            if known == source:
                return opened
        found: OpenSource | AimcoreError
        try:
            found = source.open()
        except AimcoreError as error:
            found = error
        self._known.append((source, found))
        return found
