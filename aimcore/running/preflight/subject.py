"""What the checks look at: one experiment of a study, with all that it takes to judge it."""

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
    """Sources that were opened for the checks, each once: most experiments of a study share theirs."""

    def __init__(self) -> None:
        self._known: list[tuple[Source, OpenSource | AimcoreError]] = []  # not every source can be hashed

    def opened(self, source: Source) -> OpenSource:
        """``source``, open.

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
    """The study's folder; None where no folder is looked at."""
    features_cache: str | None = None
    """fsspec URL where features are to be kept."""

    @cached_property
    def module(self) -> ObjectiveModule:
        """Trunk and objective on the meta device: names and shapes without memory.

        Raises:
            InvalidValue: they have too many parameters.
            BrokenContract: a plugin's part cannot be built.
        """
        return module_on_meta(self.experiment)

    def opened(self, source: Source) -> OpenSource:
        """``source``, open; see :meth:`OpenSources.opened`."""
        assert self.sources is not None, "a dry run opens no source"
        return self.sources.opened(source)
