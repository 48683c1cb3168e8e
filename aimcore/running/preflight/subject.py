"""The subject of preflight checks: one experiment of a study, with everything that the checks read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import attrs

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.objectives import ObjectiveModule
from aimcore.contracts.sources import OpenSource, Source
from aimcore.engine.module_building import module_on_meta
from aimcore.experiment import Experiment, Study


class OpenSources:
    """Sources that were opened for the checks. Each is opened once, because experiments of a study share sources."""

    def __init__(self) -> None:
        self._known: list[tuple[Source, OpenSource | AimcoreError]] = []  # not every source can be hashed

    def opened(self, source: Source) -> OpenSource:
        """Return ``source``, opened.

        Raises:
            AimcoreError: it cannot be opened; the same error every time.
        """
        result = next((result for known, result in self._known if known == source), None)
        if result is None:
            result = self._open(source)
            self._known.append((source, result))
        if isinstance(result, AimcoreError):
            raise result
        return result

    def _open(self, source: Source) -> OpenSource | AimcoreError:
        try:
            return source.open()
        except AimcoreError as error:
            return error


@attrs.frozen(eq=False, slots=False)
class Subject:
    """One experiment of a study that is about to run."""

    experiment: Experiment
    study: Study
    sources: OpenSources | None = None
    """The sources of the study; None in a dry run, which opens none."""
    world_size: int = 1
    """Number of processes."""
    out: Path | None = None
    """The study's folder; None if no folder is checked."""
    features_cache: str | None = None
    """fsspec URL of the feature cache."""

    @cached_property
    def module(self) -> ObjectiveModule:
        """Return trunk and objective on the meta device: names and shapes without storage.

        Raises:
            InvalidValue: they have too many parameters.
            BrokenContract: a plugin's part cannot be built.
        """
        return module_on_meta(self.experiment)

    def opened(self, source: Source) -> OpenSource:
        """Return ``source``, opened; see :meth:`OpenSources.opened`."""
        assert self.sources is not None, "a dry run opens no source"
        return self.sources.opened(source)
