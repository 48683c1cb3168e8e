"""Metrics to Weights & Biases. A plugin of its own, because it needs the extra ``wandb``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from aimcore import AimcoreError, Problem, Tracker, TrackerRun, component, hookimpl
from aimcore.io.atomic_files import write_atomically

ID_FILE = "wandb_id.txt"
"""In the run's folder: the id under which the run goes on when it is resumed."""

_EXIT_CODES = {"finished": 0, "interrupted": 130}


class TrackerUnavailable(AimcoreError):
    """A service that metrics should go to cannot be reached, or wants to know who is there."""


@hookimpl
def trackers() -> list[type[Tracker]]:
    """The tracker of this module."""
    return [Wandb]


@component("wandb")
class Wandb(Tracker):
    """Logs a run to Weights & Biases, with its recipe as the configuration; works offline.

    The run's id is kept in the run's folder, so that a resumed run goes on as the same one. What it logs again is left
    out there: a resumed run repeats its steps exactly. Runs made offline are sent later by ``wandb sync`` with the
    folders ``wandb/offline-run-*`` in the run's folder.
    """

    project: str
    entity: str | None = None
    """User or team; by default the one that is logged in."""
    group: str | None = None
    """What the run is grouped under, e.g. the study's name."""
    mode: Literal["online", "offline"] | None = None
    """Offline keeps everything in the run's folder. By default the variable WANDB_MODE decides; without it, online."""

    def problems(self) -> Iterable[Problem]:
        """A project is needed."""
        if not self.project:
            yield Problem("project", "must name a project, got ''")

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> WandbRun:
        """Begin a run, or go on with the one whose id is in ``folder``.

        Raises:
            TrackerUnavailable: the service cannot be reached, or nobody is logged in.
        """
        return WandbRun(self, Path(folder), recipe, resume_step)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Offline."""
        return (cls(project="aimcore", mode="offline"),)


class WandbRun(TrackerRun):
    """An open run of :class:`Wandb`."""

    def __init__(self, config: Wandb, folder: Path, recipe: Mapping[str, Any], resume_step: int) -> None:
        import wandb

        path = folder / ID_FILE
        known = path.read_text(encoding="utf-8").strip() if resume_step and path.is_file() else None
        try:
            self._run = wandb.init(
                project=config.project,
                entity=config.entity,
                group=config.group,
                name=folder.resolve().name,
                id=known,
                resume="allow" if known else None,
                mode=config.mode,
                dir=str(folder),
                config=dict(recipe),
                # The run's own log lines and files are nobody else's business.
                settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
            )
        except wandb.Error as error:
            raise TrackerUnavailable(
                f"wandb: {error}. Log in by 'wandb login', or keep everything here: set the tracker's mode to 'offline'"
            ) from error
        write_atomically(path, f"{self._run.id}\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to every curve, unless this step has one already."""
        # wandb takes steps in ascending order only, and complains about every other.
        if step >= self._run.step:
            self._run.log(dict(metrics), step=step)

    def close(self, status: str) -> None:
        """End the run and say how it ended."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=_EXIT_CODES.get(status, 1))
