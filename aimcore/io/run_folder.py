"""The folders of studies, runs and checkpoints: the names of the files in them. No other module spells these names.

::

    STUDY/                              StudyFolder
        summary.json                    what was measured
        report.html, report/            the report and its figures
        .lock, .lock.json               the process that writes here; also in the folder of a single run
        EXPERIMENT/                     RunFolder
            recipe.json                 the experiment
            metrics.jsonl               a line per logged step
            metrics.damaged.txt         lines of it that could not be read
            validation.json             losses on validation images
            error.txt                   the traceback of the last failure
            samples.npz                 images and predictions, for the report
            checkpoints/
                latest                  the name of the newest checkpoint, for DeepSpeed's tools
                step_00000600/          see :func:`checkpoint_name`
                    manifest.json       sizes and hashes of the other files; written last
                    model.safetensors   whole weights, where training ended
                    *.pt                DeepSpeed's files
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs

from aimcore.io.atomic_files import PARTIAL

SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
FIGURES_FOLDER = "report"
LOCK_FILE = ".lock"
HOLDER_FILE = ".lock.json"

RECIPE_FILE = "recipe.json"
METRICS_FILE = "metrics.jsonl"
DAMAGED_METRICS_FILE = "metrics.damaged.txt"
VALIDATION_FILE = "validation.json"
ERROR_FILE = "error.txt"
SAMPLES_FILE = "samples.npz"

CHECKPOINTS_FOLDER = "checkpoints"
LATEST_FILE = "latest"
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
"""In a checkpoint; folders of encoders have this name from Hugging Face."""

_STEP = "step_"
_CHECKPOINT = re.compile(rf"{_STEP}([0-9]{{8,}})")


@attrs.frozen
class StudyFolder:
    """The folder of a study, which holds a folder per run."""

    path: Path

    @property
    def summary(self) -> Path:
        """What was measured."""
        return self.path / SUMMARY_FILE

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / REPORT_FILE

    @property
    def figures(self) -> Path:
        """The folder of the report's figures."""
        return self.path / FIGURES_FOLDER

    def run(self, experiment: str) -> RunFolder:
        """The folder of the run of an experiment, by its name."""
        return RunFolder(self.path / experiment)

    def runs(self) -> list[str]:
        """Return the names of the runs in the folder that have a recipe, in alphabetical order."""
        return sorted(path.parent.name for path in self.path.glob(f"*/{RECIPE_FILE}"))


@attrs.frozen
class RunFolder:
    """The folder of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The experiment."""
        return self.path / RECIPE_FILE

    @property
    def metrics(self) -> Path:
        """A line per logged step."""
        return self.path / METRICS_FILE

    @property
    def damaged_metrics(self) -> Path:
        """Lines of the metrics that could not be read when the run was resumed."""
        return self.path / DAMAGED_METRICS_FILE

    @property
    def validation(self) -> Path:
        """Losses on validation images."""
        return self.path / VALIDATION_FILE

    @property
    def error(self) -> Path:
        """The traceback of the last failure."""
        return self.path / ERROR_FILE

    @property
    def samples(self) -> Path:
        """Images and predictions, for the report."""
        return self.path / SAMPLES_FILE

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS_FOLDER

    @property
    def written_in_turn(self) -> tuple[Path, ...]:
        """Files and folders whose times show how far the run is; DeepSpeed writes inside the last one."""
        return (self.recipe, self.metrics, self.validation, self.error, self.checkpoints)

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after ``step`` updates."""
        return self.checkpoints / checkpoint_name(step)

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints that have a manifest, newest first. The engine checks whether one can be loaded."""
        return [path for path in self._checkpoints() if is_complete(path)]

    def newest_checkpoint(self) -> Path | None:
        """The newest complete checkpoint."""
        return next(iter(self.complete_checkpoints()), None)

    def final_checkpoint(self) -> Path | None:
        """The newest complete checkpoint, if it has whole weights: training ended there."""
        newest = self.newest_checkpoint()
        return newest if newest is not None and (newest / WEIGHTS_FILE).is_file() else None

    def incomplete_checkpoints(self) -> list[Path]:
        """What a crash left of checkpoints while they were written or removed."""
        partial = sorted(self.checkpoints.glob(f"*{PARTIAL}"))
        return partial + [path for path in self._checkpoints() if not is_complete(path)]

    def _checkpoints(self) -> list[Path]:
        """Everything that has the name of a checkpoint, newest first."""
        named = [(_CHECKPOINT.fullmatch(path.name), path) for path in self.checkpoints.glob(f"{_STEP}*")]
        found = [(int(name[1]), path) for name, path in named if name is not None]
        return [path for step, path in sorted(found, reverse=True) if path.name == checkpoint_name(step)]


def checkpoint_name(step: int) -> str:
    """The name of the folder of a checkpoint.

    >>> checkpoint_name(600)
    'step_00000600'
    """
    return f"{_STEP}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The number of updates before a checkpoint was saved, from the name of its folder."""
    return int(checkpoint.name.removeprefix(_STEP))


def step_of_name(name: str) -> int | None:
    """Return the step of a checkpoint's folder by its name; None if it is no such name.

    >>> step_of_name("step_00000600"), step_of_name("step_00000600.partial")
    (600, None)
    """
    found = _CHECKPOINT.fullmatch(name)
    return int(found.group(1)) if found else None


def is_complete(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint were written: the manifest is the last one."""
    return os.path.lexists(checkpoint / MANIFEST_FILE)


def runs_in(folder: Path) -> list[RunFolder]:
    """The runs in the folder of a study, by name."""
    return [RunFolder(path.parent) for path in sorted(folder.glob(f"*/{RECIPE_FILE}"))]
