"""Errors of training; each message says what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aimcore.contracts.errors import AimcoreError


class TrainingDiverged(AimcoreError):
    """A loss or the gradient is no longer a finite number; the update was not applied and nothing was saved."""

    def __init__(
        self, step: int, losses: Mapping[str, float], gradient_norm: float | None, last_checkpoint: str | None = None
    ) -> None:
        self.step = step
        self.losses = dict(losses)
        self.gradient_norm = gradient_norm
        values = [f"loss {name} = {value:g}" for name, value in losses.items()]
        if gradient_norm is not None:
            values.append(f"gradient norm = {gradient_norm:g}" if math.isfinite(gradient_norm) else "gradient overflow")
        saved = f"the last checkpoint is {last_checkpoint}" if last_checkpoint else "no checkpoint was saved before"
        super().__init__(
            f"training diverged at step {step}: {', '.join(values)}. The update was not applied; {saved}. "
            "Try a lower optimizer.peak_lr, more schedule.warmup_steps, a smaller optimizer.gradient_clipping, or "
            "engine.precision 'fp32'; and look for images of one colour where targets are normalised"
        )


class CheckpointDamaged(AimcoreError):
    """A complete checkpoint has changed since it was written, or cannot be loaded."""

    def __init__(self, file: str, problem: str, folder: str | None = None, hint: str | None = None) -> None:
        """Describe the damage.

        Args:
            file: the file that is damaged.
            problem: what is wrong with it.
            folder: the checkpoint's folder; by default ``file`` itself.
            hint: what the user can do.
        """
        self.file = file
        self.problem = problem
        self.folder = folder or file
        self.hint = hint or "restore it from a copy, or run again in another folder"
        super().__init__(f"checkpoint file {file} {problem}: it is damaged; {self.hint}")

    def with_hint(self, hint: str) -> CheckpointDamaged:
        """Return this error with another hint."""
        return CheckpointDamaged(self.file, self.problem, self.folder, hint)

    def __reduce__(self) -> tuple[type[CheckpointDamaged], tuple[str, str, str, str]]:
        """Survive the way from rank 0 to the others."""
        return type(self), (self.file, self.problem, self.folder, self.hint)


class CheckpointMismatch(AimcoreError):
    """A checkpoint was saved by a run that this one cannot continue."""

    def __init__(self, folder: str, differences: Mapping[str, tuple[object, object]]) -> None:
        self.folder = folder
        self.differences = dict(differences)
        listed = "; ".join(f"{name} was {saved}, now {asked}" for name, (saved, asked) in differences.items())
        super().__init__(
            f"cannot resume from {folder}: {listed}. Resume with what it was saved with (the ZeRO stage and the number "
            "of processes may differ), or start a new run"
        )

    def __reduce__(self) -> tuple[type[CheckpointMismatch], tuple[str, dict[str, tuple[object, object]]]]:
        """Survive the way from rank 0 to the others."""
        return type(self), (self.folder, self.differences)


class NothingToBeginWith(AimcoreError):
    """The checkpoint or weights of another run, with which this run begins, do not exist."""


class WeightsNotFound(AimcoreError):
    """A file of initial weights cannot be read."""

    def __init__(self, url: str, cause: str) -> None:
        self._given = (url, cause)
        super().__init__(f"initial weights: cannot read {url}: {cause}. Give a safetensors file, by path or fsspec URL")

    def __reduce__(self) -> tuple[type[WeightsNotFound], tuple[str, str]]:
        """Survive the way from rank 0 to the others."""
        return type(self), self._given


class WeightsNotFinite(AimcoreError):
    """Weights hold NaN or infinity, or values that are too large for float32."""

    def __init__(self, source: str, tensors: Mapping[str, tuple[int, int]]) -> None:
        self.source = source
        self.tensors = dict(tensors)
        """By name of the tensor: the number of values that are not finite, and the number of all its values."""
        listed = [f"{name} ({num} of {total} values)" for name, (num, total) in list(self.tensors.items())[:5]]
        rest = f" and {len(self.tensors) - 5} more" if len(self.tensors) > 5 else ""
        super().__init__(
            f"weights: {source} holds values that are not finite numbers, in {', '.join(listed)}{rest}. They are from "
            "a run that diverged, or the file is damaged: give other weights, or name in initial_weights.fresh the "
            "parts that should begin with fresh ones"
        )

    def __reduce__(self) -> tuple[type[WeightsNotFinite], tuple[str, dict[str, tuple[int, int]]]]:
        """Survive the way from rank 0 to the others."""
        return type(self), (self.source, self.tensors)


class WeightsChanged(AimcoreError):
    """A file of initial weights does not have the hash that the recipe records."""


class WeightsMismatch(AimcoreError):
    """Initial weights do not have the names and shapes of the experiment's trunk or objective."""

    def __init__(self, url: str, differences: Sequence[str]) -> None:
        self.url = url
        self.differences = tuple(differences)
        super().__init__(
            f"initial weights: {url} does not fit: {'; '.join(differences)}. Give the trunk the settings that the file "
            "was saved with, take another part of it (initial_weights.part), or name in initial_weights.fresh what "
            "should begin with fresh weights"
        )

    def __reduce__(self) -> tuple[type[WeightsMismatch], tuple[str, tuple[str, ...]]]:
        """Survive the way from rank 0 to the others."""
        return type(self), (self.url, self.differences)
