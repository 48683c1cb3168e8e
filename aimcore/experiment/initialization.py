"""Initialization of a run other than with fresh weights: initial weights, or a branch of another run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from aimcore.contracts import limits
from aimcore.contracts.component import Checked, at_least, settings
from aimcore.contracts.errors import Problem
from aimcore.contracts.messages import shown
from aimcore.experiment.names import name_problems
from aimcore.experiment.parameter_names import is_in
from aimcore.io.locations import location_problems

WHOLE = "all"
"""The part that is the whole objective, including the trunk."""
TRUNK = "trunk"


@settings
class Weights(Checked):
    """Trained weights in a file, with which a run begins."""

    url: str | None = None
    """A safetensors file, by its path or fsspec URL: a run's ``model.safetensors``, or weights in a layout that the
    trunk converts, such as those of a released encoder."""
    experiment: str | None = None
    """Instead of a file: an earlier experiment of the same study, whose final weights are loaded."""
    sha256: str | None = None
    """Hash of the file; a file with another hash is refused. A run without it records the file's hash in its recipe."""
    part: str = TRUNK
    """Part of the objective that is loaded from the file: ``"trunk"``, ``"all"`` for the whole objective, or the name
    of another module or parameter, such as ``"head"``."""
    resize: bool = False
    """Whether weights for another image size are accepted: the trunk then interpolates its learned positions, once."""
    fresh: tuple[str, ...] = ()
    """Names within the part, with the patterns of ``Experiment.frozen``, that are not loaded from the file, even if it
    has them: they begin with fresh weights, or with those of another file. The file must have all other names of the
    part, and no further ones."""

    def gives(self, name: str) -> bool:
        """Whether the parameter ``name`` of the objective is loaded from the file.

        >>> weights = Weights(url="model.safetensors", part="trunk", fresh=("norm",))
        >>> weights.gives("trunk.embed.weight"), weights.gives("trunk.norm.weight"), weights.gives("head.weight")
        (True, False, False)
        """
        if self.part == WHOLE:
            within = name
        elif name == self.part:
            within = ""
        elif name.startswith(f"{self.part}."):
            within = name.removeprefix(f"{self.part}.")
        else:
            return False
        return not any(is_in(within, part) for part in self.fresh)

    @property
    def gives_trunk(self) -> bool:
        """Whether the trunk, or a part of it, is loaded from the file."""
        return self.gives(TRUNK) or self.part.startswith(f"{TRUNK}.")

    def problems(self) -> Iterable[Problem]:
        """Yield a missing or refused file, an invalid hash, and settings that cannot be combined."""
        yield from self._part_problems()
        if not self.url and not self.experiment:
            yield Problem("url", f"must name a safetensors file (or experiment an earlier one), got {self.url!r}")
        if self.url:
            yield from location_problems("url", self.url)
        if self.experiment is not None:
            yield from name_problems("experiment", self.experiment)
        if self.url and self.experiment:
            yield Problem("experiment", f"give a file or an experiment, got {self.url!r} and {self.experiment!r}")
        if self.experiment and self.sha256:
            yield Problem("sha256", "goes with a file: an experiment's weights are only there when it has ended")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            yield Problem("sha256", f"must be 64 hexadecimal digits in lower case, got {self.sha256!r}")

    def _part_problems(self) -> Iterable[Problem]:
        if "*" in self.part or not all(self.part.split(".")):
            yield Problem(
                "part",
                f"must be 'all', 'trunk', or the name of another module or parameter, such as 'head'; got "
                f"{shown(self.part)}",
            )
        elif self.resize and self.part not in (WHOLE, TRUNK):
            yield Problem("resize", f"must be false for part {self.part!r}: only the trunk resizes its positions")


def overlap_problems(files: Mapping[str, Weights]) -> Iterable[Problem]:
    """Yield pairs of ``files`` that initialize the same part of an objective; keys are their paths in a recipe."""
    for (path, one), (other_path, other) in combinations(files.items(), 2):
        if one.gives(other.part) or other.gives(one.part):
            yield Problem(
                other_path,
                f"part {other.part!r} overlaps part {one.part!r} of {path}: take each part from one file, or name in "
                "fresh what the larger part leaves to the other file",
            )


@settings
class Branch(Checked):
    """A branch of another run of the study: it begins with that run's checkpoint, including the optimiser state.

    Both runs must have the same settings and learning rates up to that step, so that a branch gives the same results as
    a run from the start (arXiv:2411.14402, section 3.1: cooldowns from the checkpoints of one long run).
    """

    experiment: str
    """An earlier experiment of the study."""
    step: int
    """Number of updates before the branch; the other run must have a checkpoint at this step."""

    def problems(self) -> Iterable[Problem]:
        """Yield an invalid name, and a step below 1."""
        yield from name_problems("experiment", self.experiment)
        yield from at_least("step", self.step, 1, limits.STEPS)
