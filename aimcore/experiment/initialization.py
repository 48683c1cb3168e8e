"""What a run begins with, where that is not fresh weights."""

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
"""The part that is the whole objective, trunk included."""
TRUNK = "trunk"


@settings
class Weights(Checked):
    """Fitted weights in a file, for a run to begin with."""

    url: str | None = None
    """A safetensors file, by its path or fsspec URL: a run's ``model.safetensors``, or weights in a layout that the
    trunk converts, such as those of a released encoder."""
    experiment: str | None = None
    """Instead of a file: an earlier experiment of the same study, whose weights at its end are taken."""
    sha256: str | None = None
    """Hash of the file: one with another is refused. A run that is given none writes the one it finds in its recipe."""
    part: str = TRUNK
    """What is taken from the file: ``"trunk"``, ``"all"`` for the whole objective, or the name of another module or
    parameter of the objective, such as ``"head"``."""
    resize: bool = False
    """Whether weights fitted at another image size will do: the trunk interpolates its learned positions, once."""
    fresh: tuple[str, ...] = ()
    """Names, as in ``Experiment.frozen`` but within the part, that are not taken from the file, whether or not it has
    them: they begin with fresh weights, or with those of another file. All others must be there, and no others may
    be."""

    def gives(self, name: str) -> bool:
        """Whether the file gives what is called ``name`` in the objective.

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
        """Whether the file gives the trunk, or something in it."""
        return self.gives(TRUNK) or self.part.startswith(f"{TRUNK}.")

    def problems(self) -> Iterable[Problem]:
        """A file at an allowed protocol or an experiment is needed, and a hash is one."""
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
    """Yield every two of ``files`` that give the same part of an objective; the keys are their paths in a recipe."""
    for (path, one), (other_path, other) in combinations(files.items(), 2):
        if one.gives(other.part) or other.gives(one.part):
            yield Problem(
                other_path,
                f"part {other.part!r} overlaps part {one.part!r} of {path}: take each part from one file, or name in "
                "fresh what the larger part leaves to the other file",
            )


@settings
class Branch(Checked):
    """Where a run leaves another one of its study: it begins with that run's checkpoint, optimiser state included.

    The two must be the same up to that step, learning rates too, so that a branch gives what it would have given had it
    been trained from its beginning (arXiv:2411.14402, section 3.1: cooldowns from the checkpoints of one long run).
    """

    experiment: str
    """An earlier experiment of the study."""
    step: int
    """Updates done before the branch; the other run has a checkpoint there."""

    def problems(self) -> Iterable[Problem]:
        """The other run has a name, and has begun."""
        yield from name_problems("experiment", self.experiment)
        yield from at_least("step", self.step, 1, limits.STEPS)
