"""Metrics in Weights & Biases. It is a plugin of its own, because it requires the extra ``wandb``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from aimcore import AimcoreError, Problem, Tracker, TrackerRun, component, hookimpl
from aimcore.io.atomic_files import write_atomically

ID_FILE = "wandb_id.txt"
"""File in the run's folder with the id that a resumed run continues."""

_EXIT_CODES = {"finished": 0, "interrupted": 130}


class TrackerUnavailable(AimcoreError):
    """A service for metrics cannot be reached, or requires a login."""


@hookimpl
def trackers() -> list[type[Tracker]]:
    """Supply the tracker of this module."""
    return [Wandb]


@component("wandb")
class Wandb(Tracker):
    """Logs a run to Weights & Biases, with its recipe as the configuration; works offline.

    The run's id is stored in the run's folder, so that a resumed run continues it. Steps that are logged again are
    skipped, because a resumed run repeats its steps exactly. ``wandb sync`` uploads offline runs later from the
    folders ``wandb/offline-run-*`` in the run's folder.
    """

    project: str
    entity: str | None = None
    """User or team; by default the one that is logged in."""
    group: str | None = None
    """The group of the run, such as the study's name."""
    mode: Literal["online", "offline"] | None = None
    """With "offline", everything stays in the run's folder. By default WANDB_MODE decides; without it, "online"."""

    def problems(self) -> Iterable[Problem]:
        """Yield a missing project."""
        if not self.project:
            yield Problem("project", "must name a project, got ''")

    def open(self, folder: str, recipe: Mapping[str, Any], resume_step: int) -> WandbRun:
        """Start a run, or continue the one whose id is in ``folder``.

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
                # wandb must not upload the log lines and files of the run.
                settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
            )
        except wandb.Error as error:
            raise TrackerUnavailable(
                f"wandb: {error}. Log in by 'wandb login', or keep everything here: set the tracker's mode to 'offline'"
            ) from error
        write_atomically(path, f"{self._run.id}\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to every curve, unless this step already has one."""
        # wandb takes steps in ascending order only, and complains about every other.
        if step >= self._run.step:
            self._run.log(dict(metrics), step=step)

    def close(self, status: str) -> None:
        """End the run, and report how it ended."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=_EXIT_CODES.get(status, 1))
